"""What every program does at its start: flags, devices, the compile cache, and errors in one line."""

import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from mtl_jax.training.interrupts import Interrupted

flags.DEFINE_integer("devices", None, "Simulate this many CPU devices.", lower_bound=1)
flags.DEFINE_string(
    "compile_cache",
    os.path.join("~", ".cache", "mtl_jax", "compiled"),
    "Where compiled programs are kept; '' for none.",
)
flags.DEFINE_bool("traceback", False, "Show where an error came from.")
flags.DEFINE_bool("fields", False, "Show the fields that a config may have, their defaults and what they are.")

USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError, KeyError, AttributeError, TypeError)


def run(main: Callable[[], int | None], required: Sequence[str] = (), fields: Sequence[str] = ()) -> None:
    """Parses flags, prepares JAX and runs `main`; an error is printed in one line, with exit status 1 (flags: 2).

    After a signal, what `fit` has saved is said, and the status is 130 (Ctrl-C) or 143 (SIGTERM), so that a loop of
    commands ends.

    Args:
      main: the program.
      required: flags that must be given.
      fields: config fields that it knows beyond those of `configs.base`.
    """

    def parse(argv: list[str]) -> list[str]:
        try:
            check_config_flags(argv, fields)
            left = flags.FLAGS(argv)
            if flags.FLAGS.fields:
                print(fields_shown(), flush=True)
                raise SystemExit(0)
            for name in required:
                if flags.FLAGS[name].value is None:
                    raise ValueError(f"flag --{name} is required; {flags.FLAGS[name].help}")
            if len(left) > 1:
                raise ValueError(f"unexpected argument {left[1]!r}; all arguments are flags, --name=value")
        except (flags.Error, *USER_ERRORS) as error:
            fail(error if "--traceback" in argv else ValueError(last_of_traceback(str(error))), 2)
        return left

    def guarded(argv: list[str]) -> int | None:
        del argv
        try:
            prepare()
            return main()
        except Interrupted as stopped:
            print(stopped, flush=True)
            return stopped.status
        except USER_ERRORS as error:
            if flags.FLAGS.traceback:
                traceback.print_exc()
            fail(error, 1)

    app.run(guarded, flags_parser=parse)


def check_config_flags(argv: Sequence[str], fields: Sequence[str]) -> None:
    """Errors for a config file that is not there and a field that no program reads, with what there is."""
    from experiments.configs import base
    from mtl_jax import parts

    known = [*base.get_config(), *fields]
    for argument in argv:
        if found := re.fullmatch(r"--?config\.(\w+).*", argument, re.DOTALL):
            if found[1] not in known:
                raise parts.unknown("config field", found[1], known)
        elif found := re.fullmatch(r"--?config=([^:]*)(:.*)?", argument):
            path = pathlib.Path(found[1])
            if not path.is_file():
                here = sorted(p.stem for p in path.parent.glob("*.py") if p.stem not in ("__init__", "base"))
                there = f"{path.parent} has {', '.join(here)}" if here else "configs are in experiments/configs"
                raise FileNotFoundError(f"there is no config file {path}; {there}")


def fields_shown() -> str:
    """Every config field, as the flag that sets it, with its default and what it is."""
    from experiments.configs import base

    shown = ((n, "None" if isinstance(d, type) else repr(d), doc) for n, (d, doc) in sorted(base.fields().items()))
    return "\n".join(f"--config.{name}={default}\n    {doc}" for name, default, doc in shown)


def last_of_traceback(text: str) -> str:
    """What an error in a config file says, of a text that has its whole traceback; any other text as it is."""
    before, found, after = text.rpartition("Traceback (most recent call last):\n")
    if not found:
        return text
    lines = after.splitlines()
    last = next((i for i, line in enumerate(lines) if line[:1].strip()), 0)
    return f"{before.split(':')[0]}: {' '.join(lines[last:]).strip()} (--traceback shows where)"


def fail(error: Exception, status: int) -> None:
    """Prints the error and exits."""
    text = str(error) or type(error).__name__
    if isinstance(error, KeyError | AttributeError | TypeError) and status == 1:
        text = f"{type(error).__name__}: {error} (--traceback shows where)"
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(status)


def prepare() -> None:
    """Simulated devices and the persistent compile cache, before JAX looks at its devices."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # --verbosity=0 shows what the checkpointer does
    import jax

    if flags.FLAGS.devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", flags.FLAGS.devices)
    if flags.FLAGS.compile_cache:
        directory = pathlib.Path(flags.FLAGS.compile_cache).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(directory))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

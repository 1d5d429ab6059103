"""The command line: `hallmark --help`. Everything heavy is imported where it is used."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hallmark.errors import HallmarkError

app = typer.Typer(help=__doc__.splitlines()[0] if __doc__ else "", no_args_is_help=True, pretty_exceptions_enable=False)

BUNDLE = Path("bundle")
DIARY = Path("models/current/diary")
EVALUATION = Path("reports/evaluation")
NIGHTLY = Path("nightly")


@app.command()
def summary(bundle: Path = BUNDLE, evaluation: Path = EVALUATION) -> None:
    """Show what the last run found: model against baselines, gates, version, where to look next."""
    from hallmark.build import build_experiment, read_params
    from hallmark.judge.terminal import show

    built = build_experiment(read_params())
    evaluator = built["evaluate"]["evaluator"]
    show(bundle, evaluation, evaluator.shown, evaluator.metrics(built["task"]))


@app.command()
def verify(bundle: Annotated[Path, typer.Argument()] = BUNDLE) -> None:
    """Check the sha256 of every file of a bundle."""
    from hallmark.prove.bundle import open_bundle

    hallmark, digest = open_bundle(bundle)
    typer.echo(
        f"{bundle}: {hallmark.task} {hallmark.version}, {len(hallmark.files)} files as marked, hallmark {digest[:12]}"
    )


@app.command()
def predict(
    request: Annotated[Path, typer.Argument(help="a JSON file with one request")], bundle: Path = BUNDLE
) -> None:
    """Answer one request from a file, as the service would."""
    from pydantic import ValidationError

    from hallmark.build import build
    from hallmark.errors import RequestError
    from hallmark.prove.bundle import open_bundle

    hallmark, digest = open_bundle(bundle)
    task = build(hallmark.spec, "task")
    example = f"an example: examples/{hallmark.task}.json"
    try:
        parsed = task.request_type().model_validate_json(request.read_bytes())
    except OSError as error:
        raise RequestError(f"{request} cannot be read ({error.strerror}): give a JSON file, {example}") from None
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic's words about a missing, extra or ill-typed field name the rule, never the value.
        why = " ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise RequestError(f"{request} is no request for {hallmark.task}: {why} ({example})") from None
    [response] = task.predictor(bundle, hallmark.version, digest).predict([parsed])
    typer.echo(response.model_dump_json(indent=1))


@app.command()
def refresh(
    rows: Annotated[Path, typer.Argument(help="a CSV or Parquet file with the new rows")],
    bundle: Path | None = None,
    diary: Path | None = None,
    out: Path = NIGHTLY,
    setting: Annotated[list[str] | None, typer.Option("--set", help="how to read ROWS, as unit=mmol/L")] = None,
) -> None:
    """Take up new rows, such as a day of readings, without training: a new bundle and a new diary.

    Starts from OUT as the last refresh left it, else from the trained bundle and its diary.
    """
    from hallmark.errors import BundleError, ConfigError
    from hallmark.files import recover
    from hallmark.prove.bundle import open_bundle
    from hallmark.stages.refresh import refresh as stage
    from hallmark.stages.refresh import trained_from

    pairs = [pair.partition("=") for pair in setting or ()]
    if odd := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError(f"--set {odd[0]} has no value: write --set KEY=VALUE")
    recover(out)  # a refresh may have been killed
    if bundle is None and diary is None and (out / "bundle").is_dir():
        bundle = out / "bundle"
        if BUNDLE.is_dir() and trained_from(*open_bundle(bundle)) != trained_from(*open_bundle(BUNDLE)):
            raise BundleError(f"{bundle} goes back to another trained bundle than {BUNDLE}: remove {out}, or name both")
    bundle = bundle or BUNDLE
    beside = bundle.parent / "diary"
    diary = diary or (beside if beside.is_dir() else DIARY)
    hallmark, found = stage(rows, bundle, diary, out, {key: value for key, _, value in pairs})
    counts = ", ".join(f"{name} {count:,}" for name, count in found.items())
    typer.echo(f"{out / 'bundle'}: {hallmark.task} {hallmark.version}; {counts}")


def main() -> None:
    """Run the command line; an error is one line and exit status 1."""
    try:
        app()
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

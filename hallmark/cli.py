"""The command `hallmark`: verify bundles, predict, replay answers, refresh adapters, check this machine."""

# Modules that take long to import are imported inside the command that uses them.

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hallmark import cli_operation, cli_plan, kernels
from hallmark.cli_operation import BUNDLE, SERVED, Bundle, Records
from hallmark.errors import HallmarkError
from hallmark.records import DEFAULT_URL

if TYPE_CHECKING:
    from hallmark.model import Model

app = typer.Typer(help=__doc__.splitlines()[0] if __doc__ else "", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(cli_operation.app)
app.add_typer(cli_plan.app, name="plan")
app.add_typer(cli_plan.stack_app, name="stack")
BUNDLES = Path("bundles")  # the last bundle of every task
REFRESH_STATE = Path("models/current/refresh_state")
EVALUATION = Path("reports/evaluation")
REFRESHED = Path("refreshed")
Bundles = Annotated[list[Path] | None, typer.Option("--bundle", help="where the bundle lies; may be repeated")]


@app.command()
def summary(bundle: Bundle = BUNDLE, evaluation: Path = EVALUATION) -> None:
    """Show the results of the last run: model against baselines, gates, version, and the paths of its outputs."""
    from hallmark.build import build_experiment, read_params
    from hallmark.judge.terminal import show_figures, show_outputs

    built = build_experiment(read_params())
    evaluator = built["evaluate"]["evaluator"]
    show_figures(evaluation, evaluator.layout, evaluator.metrics(built["task"], built["learner"]))
    show_outputs(bundle, evaluation)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(envvar="HALLMARK_BUNDLE")] = BUNDLE,
    key: Annotated[Path | None, typer.Option(help="public key: the bundle must be signed by its owner")] = None,
) -> None:
    """Check the sha256 of every file of a bundle, and with --key its signature."""
    from hallmark.prove.bundle import open_bundle
    from hallmark.prove.signature import verify as verify_signature

    hallmark, digest = open_bundle(bundle)
    if key is not None:
        verify_signature(bundle, key)
    signed = f", signed by the owner of {key}" if key is not None else ""
    files = f"{len(hallmark.files)} files verified"
    typer.echo(f"{bundle}: {hallmark.task} {hallmark.version}, {files}, hallmark {digest[:12]}{signed}")


@app.command()
def sign(
    key: Annotated[Path, typer.Option(help="private key, PEM, on P-256, P-384 or P-521")],
    bundle: Annotated[Path, typer.Argument(envvar="HALLMARK_BUNDLE")] = BUNDLE,
    password: Annotated[str | None, typer.Option(envvar="HALLMARK_SIGNING_PASSWORD", help="of the key")] = None,
) -> None:
    """Sign a bundle that no gate refused, in the format of OpenSSF Model Signing."""
    from hallmark.prove.bundle import open_accepted
    from hallmark.prove.signature import sign as sign_bundle

    open_accepted(bundle)
    typer.echo(f"{sign_bundle(bundle, key, password)}: the signature of {bundle}; `hallmark verify --key` checks it")


@app.command()
def doctor() -> None:
    """Check whether this machine can run the pipelines; each line is ok or names the remedy."""
    from hallmark.doctor import run_checks

    checks = list(run_checks(Path.cwd()))
    for check in checks:
        typer.echo(f"{'ok    ' if not check.remedy else 'FIX   '} {check.name:10} {check.found}")
        if check.remedy:
            typer.echo(f"{'':17} → {check.remedy}")
    if any(check.remedy for check in checks):
        raise typer.Exit(1)


@app.command()
def predict(
    requests: Annotated[list[Path], typer.Argument(help="JSON files with one request each")],
    bundle: Annotated[
        Path | None, typer.Option(envvar="HALLMARK_BUNDLE", help="default: the last bundle of the request's task")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print whole answers")] = False,
) -> None:
    """Answer requests from files, as the service would."""
    from hallmark.ask import answer, show

    bundles = [bundle] if bundle else [BUNDLE, *sorted(BUNDLES.glob("*"))]
    for request in requests:
        response = answer(request, bundles)
        if as_json:
            typer.echo(response.model_dump_json(indent=1))
        else:
            show(request, response)


@app.command()
def refresh(
    rows: Annotated[Path, typer.Argument(help="a CSV or Parquet file with the new rows")],
    bundle: Annotated[Path | None, typer.Option(envvar="HALLMARK_BUNDLE")] = None,
    state: Path | None = None,
    out: Path = REFRESHED,
    setting: Annotated[list[str] | None, typer.Option("--set", help="how to read ROWS, such as unit=mmol/L")] = None,
) -> None:
    """Update adapters with new rows, such as a day of readings, without training; write a new bundle and state.

    Starts from the last refresh in OUT if there is one, otherwise from the trained bundle and its state.
    """
    from hallmark.errors import BundleError, ConfigError
    from hallmark.files import recover
    from hallmark.prove.bundle import read_hallmark
    from hallmark.stages.refresh import refresh as stage
    from hallmark.stages.refresh import trained_from

    pairs = [pair.partition("=") for pair in setting or ()]
    if without_value := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError(f"--set {without_value[0]} has no value: write --set KEY=VALUE")
    recover(out)  # an earlier refresh may have been killed
    if bundle is None and state is None and (out / "bundle").is_dir():
        bundle = out / "bundle"
        if BUNDLE.is_dir() and trained_from(*read_hallmark(bundle)) != trained_from(*read_hallmark(BUNDLE)):
            raise BundleError(f"{bundle} goes back to another trained bundle than {BUNDLE}: remove {out}, or name both")
    bundle = bundle or BUNDLE
    refreshed_state = bundle.parent / "refresh_state"
    state = state or (refreshed_state if refreshed_state.is_dir() else REFRESH_STATE)
    hallmark, counts = stage(rows, bundle, state, out, {key: value for key, _, value in pairs})
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    typer.echo(f"{out / 'bundle'}: {hallmark.task} {hallmark.version}; {listed}")


@app.command()
def predict_batch(
    source: Annotated[Path, typer.Argument(help="requests: a Parquet, CSV or NDJSON file, a row each")],
    target: Annotated[Path, typer.Argument(help="gets the answers, in order; its suffix names the format")],
    bundle: Bundle = BUNDLE,
    records: Annotated[
        str, typer.Option(help="records whose stopped adapters do not answer; default: every adapter answers")
    ] = "",
) -> None:
    """Answer a file of requests, of any size, in constant memory."""
    import time

    from hallmark.batch import predict_file
    from hallmark.learn.trainer import quiet
    from hallmark.model import Model
    from hallmark.progress import bars

    quiet()
    model = Model(bundle)
    start = time.monotonic()
    counts = predict_file(model, source, target, bars(), _stopped(records, model) if records else {})
    seconds, rows = time.monotonic() - start, sum(counts.values())
    listed = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    typer.echo(f"{target}: {rows:,} rows in {seconds:.1f} s ({rows / max(seconds, 1e-9):,.0f} a second): {listed}")


def _stopped(records: str, model: "Model") -> dict[str, str]:
    """Return the subjects whose adapters are stopped, by the records of a service."""
    from hallmark.records.database import open_database
    from hallmark.watch.adapters import read_ledgers, stopped

    database, task = open_database(records, must_exist=True), model.hallmark.task
    if read_ledgers(database, task) and not read_ledgers(database, task, model.digest):
        raise HallmarkError(
            f"{records} judges adapters of another version than {model.directory}: add --bundle {SERVED}/{task}/current"
        )
    return stopped(database, model.digest)


@app.command()
def replay(
    prediction: Annotated[str | None, typer.Argument(help="id of a recorded answer")] = None,
    sample: Annotated[int, typer.Option(min=1, help="without an id: so many of the newest answers")] = 100,
    records: Records = DEFAULT_URL,
    bundle: Bundles = None,
) -> None:
    """Compute recorded answers again from bundle and request; compare answers and weights byte for byte."""
    from hallmark.replaying import replay_answers

    results = list(replay_answers(records, prediction, sample, _directories(bundle)))
    for found in results:
        if not found.equal:
            what = [f"differs in {found.difference}"] if found.difference else []
            what += [f"wrong weights ({', '.join(found.wrong_weights)})"] if found.wrong_weights else []
            what += [f"another machine: {found.other_machine}"] if found.other_machine else []
            typer.echo(f"{found.id}: {'; '.join(what)}")
    equal = sum(found.equal for found in results)
    typer.echo(f"{equal} of {len(results)} recorded answers are the same, byte for byte")
    if equal < len(results):
        raise typer.Exit(1)


@app.command()
def provenance(
    prediction: Annotated[str, typer.Argument(help="id of a recorded answer")],
    top: Annotated[int, typer.Option(min=1, help="so many of the most influential observations")] = 10,
    records: Records = DEFAULT_URL,
    bundle: Bundles = None,
) -> None:
    """Name the observations that a recorded answer rests on, and those that it would change most without."""
    from hallmark.replaying import trace_answer

    traced, found = trace_answer(records, prediction, _directories(bundle))
    observed = traced.observations
    first, last = observed.request[0], observed.request[-1]
    typer.echo(f"request: {len(observed.request)} observations, {first} to {last}")
    if observed.past:
        typer.echo(f"past: {len(observed.past)} readings, {observed.past[0]} to {observed.past[-1]}")
    if observed.fitted:
        typer.echo(f"linear adapter: fitted on {observed.fitted[0]} to {observed.fitted[1]}")
    for influence in found[:top]:
        change = "no answer without it" if influence.change is None else f"{influence.change:.6g}"
        typer.echo(f"{influence.id:20} {change}")
    typer.echo(f"({traced.unit} without it)" if traced.unit else "this task measures no influences")


def _directories(named: list[Path] | None) -> list[Path]:
    """List where the bundle of an answer may lie."""
    return [
        *(named or ()),
        BUNDLE,
        REFRESHED / "bundle",
        *BUNDLES.glob("*"),
        *Path("champions").glob("*"),
        *SERVED.glob("*/*/"),
    ]


def main() -> None:
    """Run the command line; an error is one line and exit status 1."""
    try:
        kernels.pin()
        app(prog_name="hallmark")
    except HallmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

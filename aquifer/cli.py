"""The command line: which words there are. What they do is in the modules named like them."""

from __future__ import annotations

import typer

from aquifer import (
    api,
    audit,
    checkpoints,
    forecast,
    letters,
    operate,
    past,
    policies,
    policy,
    pool,
    read,
    relaying,
    renting,
    run,
    serve,
    simulate,
    subjects,
    submit,
    what_if,
)

app = typer.Typer(
    name="aquifer",
    help="Decides which GPU and NPU capacity runs which work, and proves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command()(simulate.simulate)
app.command()(what_if.what_if)
app.command()(forecast.forecast)
app.command()(submit.submit)
app.command()(submit.cancel)
app.command()(submit.send)
app.command()(read.get)
app.command()(read.explain)
app.command()(operate.doctor)
app.command()(serve.worker)
app.command()(api.api)
app.command()(serve.agents)
app.command()(relaying.relay)
app.command()(renting.rent)
app.command()(pool.regions)
app.command()(pool.peers)
app.command("hand-offs")(pool.hand_offs)
app.command()(pool.fence)
app.command()(serve.generate)
for word in (*checkpoints.COMMANDS, *past.COMMANDS):
    audit.app.command()(word)
app.add_typer(audit.app, name="audit")
for name, action in policies.COMMANDS.items():
    policy.app.command(name)(action)
app.add_typer(policy.app, name="policy")
app.add_typer(subjects.app, name="subjects")
app.add_typer(letters.app, name="dead-letters")
app.add_typer(operate.quarantine_app, name="quarantine")

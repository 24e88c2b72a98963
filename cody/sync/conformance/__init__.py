"""Does an adapter keep the contract? `conformance.run(MyAdapter)` plays every promise against it and reports.

    report = conformance.run(MyAdapter)     # or any callable that makes an adapter
    print(report)
    assert report.passed

Scenarios that only need the seven methods are played against any adapter. Those that inject faults (a backend that goes
away, lies or loses its worker) need the adapter to show `bench`, as every Engine does: the storage and the clock that
its workers work with (worker.Bench). Without it they are reported as `not_exercised`, never as passed.
"""

from cody.sync.conformance.case import AdapterConformance
from cody.sync.conformance.report import Report, ScenarioResult
from cody.sync.conformance.runner import run, run_async, scenario_names

__all__ = ["AdapterConformance", "Report", "ScenarioResult", "run", "run_async", "scenario_names"]

"""Every promise of the contract, one scenario each; the name of a scenario names the fault it finds."""

from cody.sync.conformance.scenarios import cancelling, collecting, failing, jobs, sealing

ALL = (*collecting.SCENARIOS, *sealing.SCENARIOS, *jobs.SCENARIOS, *cancelling.SCENARIOS, *failing.SCENARIOS)

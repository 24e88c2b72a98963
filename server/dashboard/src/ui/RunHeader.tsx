// What a run is and how it does, and the ways to steer it. A click shows at once; what the server answers decides.

import { useMemo, useRef, useState } from 'preact/hooks'
import { type ControlAction, type RunSnapshot, type RunStatus, TERMINAL } from '../api/contracts'
import { control } from '../api/runs'
import type { Turn } from '../model/run_model'
import type { RunSession } from '../model/run_session'
import { useStore } from '../model/store'
import { ago, compact, duration, elapsedMs, grouped, moment } from '../text/format'
import { Figure, Notice, Status } from './bits'

const ASKED: Record<ControlAction, RunStatus> = { pause: 'pausing', resume: 'running', cancel: 'cancelling' }

export function RunHeader({ session, run, nowMs }: { session: RunSession; run: RunSnapshot; nowMs: number }) {
  const [asked, setAsked] = useState<ControlAction | null>(null)
  const [refused, setRefused] = useState<string | null>(null)
  const dialog = useRef<HTMLDialogElement>(null)

  const act = async (action: ControlAction): Promise<void> => {
    setAsked(action)
    setRefused(null)
    try {
      const answer = await control(run.runId, action)
      const now = session.snapshot.value ?? run
      // A snapshot that came in the meantime may know more than the answer.
      if (now.status === run.status) session.snapshot.set({ ...now, status: answer.status })
    } catch (error) {
      setRefused(`Could not ${action} the run: ${error instanceof Error ? error.message : String(error)}`)
    } finally {
      setAsked(null)
      session.readSoon()
    }
  }
  const version = useStore(session.version)
  const turns = useMemo(() => session.model.ordered, [session, version])
  const shown = asked ? ASKED[asked] : run.status
  return (
    <header class="run-head">
      <div class="run-title">
        <h1>{run.epicId}</h1>
        <span role="status">
          <Status status={shown} />
        </span>
        <span class="run-outcome">{outcome(run)}</span>
        <span class="run-actions">
          <Actions runId={run.runId} status={shown} isBusy={asked !== null} onAct={(action) => void act(action)} onCancel={() => dialog.current?.showModal()} />
        </span>
      </div>
      <p class="run-facts">
        <code title="Run id">{run.runId}</code>
        <span>
          {run.agent}
          {run.config.model ? ` · ${run.config.model}` : ''}
        </span>
        <code title="Working folder">{run.workingDir}</code>
        {run.host && <span>on {run.host}</span>}
        <span title={moment(run.updatedAt)}>active {ago(run.updatedAt, nowMs)}</span>
      </p>
      <Numbers run={run} turns={turns} nowMs={nowMs} />
      {refused && <Notice tone="bad">{refused}</Notice>}
      {run.error && (
        <Notice tone="bad">
          <strong>{run.error.code}</strong> {run.error.message}
          {run.error.retryable && ' The same run, started again, may well succeed.'}
        </Notice>
      )}
      <dialog ref={dialog} aria-labelledby="cancel-title" class="dialog">
        <h2 id="cancel-title">Cancel this run?</h2>
        <p>
          {run.status === 'running' || run.status === 'pausing'
            ? `The agent is told to stop now and killed after its grace period; turn ${run.currentTurn ?? 1} is not finished.`
            : 'No further turn begins.'}{' '}
          Files that it has changed stay as they are. A cancelled run can't be resumed, only started again as a new one.
        </p>
        <div class="dialog-actions">
          <button type="button" class="button" onClick={() => dialog.current?.close()}>
            Keep it
          </button>
          <button
            type="button"
            class="button danger"
            onClick={() => {
              dialog.current?.close()
              void act('cancel')
            }}
          >
            Cancel the run
          </button>
        </div>
      </dialog>
    </header>
  )
}

interface ActionsProps {
  runId: string
  status: RunStatus
  isBusy: boolean
  onAct: (action: ControlAction) => void
  onCancel: () => void
}

function Actions({ runId, status, isBusy, onAct, onCancel }: ActionsProps) {
  if (TERMINAL.has(status)) {
    return (
      <a class="button" href={`/new?from=${runId}`}>
        Run again …
      </a>
    )
  }
  return (
    <>
      {(status === 'running' || status === 'pausing') && (
        <button
          type="button"
          class="button"
          disabled={isBusy || status === 'pausing'}
          title="Takes effect at the end of this turn"
          onClick={() => onAct('pause')}
        >
          {status === 'pausing' ? 'Pauses after this turn' : 'Pause'}
        </button>
      )}
      {status === 'paused' && (
        <button type="button" class="button primary" disabled={isBusy} onClick={() => onAct('resume')}>
          Resume
        </button>
      )}
      <button type="button" class="button danger-quiet" disabled={isBusy || status === 'cancelling'} onClick={onCancel}>
        {status === 'cancelling' ? 'Cancelling …' : 'Cancel …'}
      </button>
    </>
  )
}

/** The last test run that there was: a sum over the turns would never forget what was mended since. */
function latestTests(turns: Turn[]): { passed: number; failed: number } | null {
  for (const turn of turns.toReversed()) {
    const last = turn.testRuns.at(-1)
    if (last) return last
    if (turn.testsPassed + turn.testsFailed > 0) return { passed: turn.testsPassed, failed: turn.testsFailed }
  }
  return null
}

function Numbers({ run, turns, nowMs }: { run: RunSnapshot; turns: Turn[]; nowMs: number }) {
  const { stats } = run
  const elapsed = elapsedMs(run, nowMs)
  const tests = latestTests(turns)
  const cached = stats.inputTokens ? Math.round((100 * stats.cachedInputTokens) / stats.inputTokens) : 0
  return (
    <dl class="figures run-numbers">
      <Figure name="Turn" value={`${run.currentTurn ?? 0}${run.config.maxTurns ? ` / ${run.config.maxTurns}` : ''}`} />
      <Figure
        name="Elapsed"
        value={elapsed === null ? '–' : duration(elapsed)}
        hint={run.startedAt ? `since ${moment(run.startedAt)}` : undefined}
      />
      <Figure name="Tokens" value={compact(stats.tokens)} hint={`${grouped(stats.inputTokens)} in, ${grouped(stats.outputTokens)} out`} />
      <Figure name="Cached" value={stats.inputTokens ? `${cached}%` : '–'} hint="of the input tokens" />
      <Figure name="Files" value={grouped(stats.filesWritten)} hint="written, summed over the turns" />
      <Figure
        name="Tests"
        value={tests ? `${grouped(tests.passed)} / ${grouped(tests.passed + tests.failed)}` : '–'}
        tone={tests?.failed ? 'bad' : undefined}
        hint={`passed in the latest run of tests; over all turns ${grouped(stats.testsPassed)} passed, ${grouped(stats.testsFailed)} failed`}
      />
    </dl>
  )
}

/** How it ended, or why it waits. Beside the status, where it takes no line of its own: nothing moves when it comes. */
function outcome(run: RunSnapshot): string {
  if (run.status === 'completed' && run.completion.source) {
    const { source, line } = run.completion
    return `${source.replaceAll('_', ' ')}${line ? `: ${line}` : ''}`
  }
  if (run.status === 'queued' && run.queuePlace) return `waits for a host that has room: place ${run.queuePlace}`
  return run.reason && run.reason !== 'manual' ? run.reason.replaceAll('_', ' ') : ''
}

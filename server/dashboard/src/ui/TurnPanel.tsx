// One turn: what it was told, what it said and did, what it changed, what its tests found, what it cost.

import { useEffect, useRef } from 'preact/hooks'
import { outputUrl } from '../api/runs'
import type { Turn } from '../model/run_model'
import { bytes, duration, grouped, moment } from '../text/format'
import { Empty, Figure, Notice, Status } from './bits'
import { TurnPrompt } from './prompts'
import { Prose, Transcript } from './Transcript'
import { turnTime } from './TurnList'

const NEAR_END_PX = 40

interface Props {
  runId: string
  turn: Turn
  nowMs: number
  version: number
  /** The latest turn is shown, whichever it is: stay at its end. */
  follow: boolean
  onEvents: () => void
}

export function TurnPanel({ runId, turn, nowMs, version, follow, onEvents }: Props) {
  const scroller = useRef<HTMLDivElement>(null)
  const atEnd = useRef(true)
  useEffect(() => {
    const element = scroller.current
    if (element && follow && atEnd.current && turn.status === 'running') element.scrollTop = element.scrollHeight
  }, [version, follow, turn])
  const onScroll = (): void => {
    const element = scroller.current
    if (element) atEnd.current = element.scrollTop + element.clientHeight > element.scrollHeight - NEAR_END_PX
  }
  return (
    <div class="turn-panel" ref={scroller} onScroll={onScroll} tabIndex={0} role="region" aria-label={`Turn ${turn.turn}`}>
      <TurnHead runId={runId} turn={turn} nowMs={nowMs} />
      {turn.error && (
        <Notice tone="bad">
          <strong>{turn.error.code}</strong> {turn.error.message}
        </Notice>
      )}
      {turn.status === 'interrupted' && turn.interrupted && <Notice tone="warn">Interrupted: {turn.interrupted}</Notice>}
      <div class="turn-parts" key={turn.turn}>
        <TurnPrompt runId={runId} turn={turn.turn} attempt={turn.attempts} />
        <Files turn={turn} />
        <Tests turn={turn} />
      </div>
      <h3>Transcript</h3>
      {turn.entries.length > 0 ? (
        <Transcript key={turn.turn} entries={turn.entries} />
      ) : turn.lastMessage ? (
        <Prose text={turn.lastMessage} />
      ) : (
        <Empty title={turn.status === 'running' ? 'Nothing said yet' : 'This agent reports no conversation'}>
          <p>
            What it prints is in the{' '}
            <button type="button" class="link" onClick={onEvents}>
              event log
            </button>{' '}
            and in the raw output.
          </p>
        </Empty>
      )}
    </div>
  )
}

function TurnHead({ runId, turn, nowMs }: { runId: string; turn: Turn; nowMs: number }) {
  const { usage } = turn
  return (
    <header class="turn-title">
      <h2>
        Turn {turn.turn} <Status status={turn.status} />
        <a class="raw" href={outputUrl(runId, turn.turn)} target="_blank" rel="noreferrer">
          Raw output{turn.droppedBytes > 0 ? ` (${bytes(turn.droppedBytes)} only there)` : ''}
        </a>
      </h2>
      <dl class="figures">
        <Figure name="Duration" value={turnTime(turn, nowMs)} hint={turn.startedAt ? `since ${moment(turn.startedAt)}` : undefined} />
        <Figure name="Input" value={grouped(usage.inputTokens)} />
        <Figure name="Cached" value={grouped(usage.cachedInputTokens)} />
        <Figure name="Output" value={grouped(usage.outputTokens)} />
        {usage.reasoningTokens > 0 && <Figure name="Reasoning" value={grouped(usage.reasoningTokens)} />}
        {turn.exitCode !== null && <Figure name="Exit code" value={turn.exitCode} tone={turn.exitCode ? 'bad' : undefined} />}
        {turn.attempts > 1 && <Figure name="Attempts" value={turn.attempts} tone="warn" />}
      </dl>
    </header>
  )
}

// The two below always take their one line, and open only when they are asked to: what an agent does as it works moves nothing.

function Files({ turn }: { turn: Turn }) {
  return (
    <details class="section">
      <summary>
        Files <span class="dim">{turn.files.size || 'none'}</span>
      </summary>
      <ul class="files">
        {[...turn.files].map(([path, change]) => (
          <li key={path}>
            <span class={`change change-${change}`}>{change}</span> <code>{path}</code>
          </li>
        ))}
      </ul>
    </details>
  )
}

function Tests({ turn }: { turn: Turn }) {
  const counted = turn.testsPassed + turn.testsFailed
  return (
    <details class="section">
      <summary>
        Tests{' '}
        <span class={counted === 0 ? 'dim' : turn.testsFailed ? 'tone-bad' : 'tone-good'}>
          {counted === 0 ? 'none' : `${turn.testsPassed} passed, ${turn.testsFailed} failed`}
        </span>
      </summary>
      <ul class="files">
        {turn.testRuns.map((run, place) => (
          <li key={place}>
            <span class={run.failed ? 'tone-bad' : 'tone-good'}>
              {run.passed} passed, {run.failed} failed{run.skipped ? `, ${run.skipped} skipped` : ''}
            </span>{' '}
            {run.command && <code>{run.command}</code>}{' '}
            <span class="dim">
              {run.framework}
              {run.durationMs !== null && ` in ${duration(run.durationMs)}`}
            </span>
          </li>
        ))}
      </ul>
    </details>
  )
}

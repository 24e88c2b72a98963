// The timeline of a run's turns.

import type { Turn } from '../model/run_model'
import { compact, duration, plural } from '../text/format'
import { Status } from './bits'
import { VirtualList } from './VirtualList'

const ROW_PX = 54

interface Props {
  turns: Turn[]
  picked: number | null
  nowMs: number
  follow: boolean
  onPick: (turn: number) => void
}

export function TurnList({ turns, picked, nowMs, follow, onPick }: Props) {
  const at = turns.findIndex((turn) => turn.turn === picked)
  const onKey = (event: KeyboardEvent): void => {
    const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0
    const next = turns[at + step]
    if (!step || !next) return
    event.preventDefault()
    onPick(next.turn)
    requestAnimationFrame(() => document.getElementById(`turn-${next.turn}`)?.focus())
  }
  return (
    <nav class="turns" aria-label="Turns" onKeyDown={onKey}>
      <h2>
        Turns <span class="dim">{turns.length || ''}</span>
      </h2>
      {turns.length === 0 && <p class="dim turns-none">None yet</p>}
      <VirtualList
        class="turn-rows"
        count={turns.length}
        rowPx={ROW_PX}
        reveal={at}
        follow={follow}
        row={(index) => {
          const turn = turns[index] as Turn
          return <TurnRow key={turn.turn} turn={turn} isPicked={turn.turn === picked} nowMs={nowMs} onPick={onPick} />
        }}
      />
    </nav>
  )
}

interface RowProps {
  turn: Turn
  isPicked: boolean
  nowMs: number
  onPick: (turn: number) => void
}

function TurnRow({ turn, isPicked, nowMs, onPick }: RowProps) {
  const tests = turn.testsPassed + turn.testsFailed
  return (
    <button
      id={`turn-${turn.turn}`}
      type="button"
      class="turn-row"
      aria-current={isPicked ? 'true' : undefined}
      tabIndex={isPicked ? 0 : -1}
      onClick={() => onPick(turn.turn)}
    >
      <span class="turn-head">
        <span class="turn-number">{turn.turn}</span>
        <Status status={turn.status} />
        <span class="turn-time">{turnTime(turn, nowMs)}</span>
      </span>
      <span class="turn-facts">
        <span>{compact(turn.usage.totalTokens)} tokens</span>
        <span>{plural(turn.filesWritten, 'file')}</span>
        {tests > 0 && (
          <span class={turn.testsFailed ? 'tone-bad' : 'tone-good'}>
            {compact(turn.testsPassed)}/{compact(tests)} tests
          </span>
        )}
      </span>
    </button>
  )
}

export function turnTime(turn: Turn, nowMs: number): string {
  if (turn.durationMs !== null) return duration(turn.durationMs)
  return turn.status === 'running' && turn.startedAt ? duration(nowMs - Date.parse(turn.startedAt)) : '–'
}

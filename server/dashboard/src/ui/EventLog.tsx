// The live log of a run: every event as a line, filtered by kind, text and turn, following the end until the reader scrolls.

import { useMemo, useState } from 'preact/hooks'
import { GROUPS, type Group, type Line } from '../model/event_lines'
import { type LineFilter, type LineLog, LineView } from '../model/line_log'
import { withoutAnsi } from '../text/ansi'
import { clock, grouped, moment } from '../text/format'
import { Ansi, Empty } from './bits'
import { VirtualList } from './VirtualList'

const LINE_PX = 20

interface Props {
  log: LineLog
  /** Counts up as the log grows: it is changed in place, so this is what tells. */
  version: number
  turn: number | null
  onTurn: (turn: number | null) => void
}

export function EventLog({ log, turn, onTurn }: Props) {
  const [hidden, setHidden] = useState<ReadonlySet<Group>>(new Set())
  const [text, setText] = useState('')
  const [follow, setFollow] = useState(true)
  const [picked, setPicked] = useState<Line | null>(null)
  const filter: LineFilter = useMemo(() => ({ hidden, text, turn }), [hidden, text, turn])
  const view = useMemo(() => new LineView(log, filter), [log, filter])
  const rows = view.update()

  const toggle = (group: Group): void => {
    const next = new Set(hidden)
    if (!next.delete(group)) next.add(group)
    setHidden(next)
  }
  return (
    <div class="event-log">
      <div class="toolbar">
        <div class="chips" role="group" aria-label="Kinds of events">
          {GROUPS.filter((group) => log.counts.has(group)).map((group) => (
            <button
              key={group}
              type="button"
              class="chip"
              aria-pressed={!hidden.has(group)}
              onClick={() => toggle(group)}
              onDblClick={() => setHidden(new Set(GROUPS.filter((one) => one !== group)))}
              title="Click: show or hide. Double click: only these."
            >
              {group}
              <span class="chip-count">{grouped(log.counts.get(group) ?? 0)}</span>
            </button>
          ))}
          {turn !== null && (
            <button type="button" class="chip" aria-pressed="true" onClick={() => onTurn(null)}>
              turn {turn} only ✕
            </button>
          )}
        </div>
        <input
          type="search"
          class="search"
          placeholder="Search the log"
          aria-label="Search the log"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <label class="switch">
          <input type="checkbox" checked={follow} onChange={(event) => setFollow(event.currentTarget.checked)} />
          Follow
        </label>
      </div>
      {rows.length === 0 ? (
        <Empty title={log.lines.length ? 'No event passes the filter' : 'No events yet'} />
      ) : (
        <VirtualList
          class="log-lines"
          role="log"
          label="Events"
          focusable
          count={rows.length}
          rowPx={LINE_PX}
          follow={follow}
          onFollow={setFollow}
          row={(index) => {
            const line = rows[index] as Line
            return <LogLine key={line.key} line={line} isPicked={picked?.key === line.key} onPick={setPicked} />
          }}
        />
      )}
      <footer class="log-foot">
        {rows.length === log.lines.length ? `${grouped(rows.length)} lines` : `${grouped(rows.length)} of ${grouped(log.lines.length)} lines`}
        {log.dropped > 0 && `, the oldest ${grouped(log.dropped)} are no longer in this page`}
      </footer>
      {picked && <PickedLine line={picked} onClose={() => setPicked(null)} />}
    </div>
  )
}

function LogLine({ line, isPicked, onPick }: { line: Line; isPicked: boolean; onPick: (line: Line) => void }) {
  return (
    <div
      class={`line tone-${line.tone || 'plain'} group-${line.group} ${isPicked ? 'line-picked' : ''}`}
      data-seq={line.seq}
      onClick={() => onPick(line)}
    >
      <time class="line-time" dateTime={line.ts}>
        {clock(line.ts)}
      </time>
      <span class="line-turn">{line.turn ?? ''}</span>
      <span class="line-type">{line.group}</span>
      <span class="line-text">{line.group === 'output' ? <Ansi text={line.text} /> : line.text}</span>
    </div>
  )
}

/** The whole of a line that is too long for its row. */
function PickedLine({ line, onClose }: { line: Line; onClose: () => void }) {
  return (
    <aside class="picked" aria-label="The picked event">
      <header>
        <strong>{line.type}</strong>
        <span class="dim">
          event {line.seq} · {moment(line.ts)}
          {line.turn !== null && ` · turn ${line.turn}`}
        </span>
        <button type="button" class="button quiet" onClick={onClose}>
          Close
        </button>
      </header>
      <pre class="block wrap" tabIndex={0}>
        {withoutAnsi(line.text)}
      </pre>
    </aside>
  )
}

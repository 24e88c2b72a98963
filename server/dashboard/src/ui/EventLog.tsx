// The live log of a run: every event as a line, filtered by kind, text and turn, following the end until the reader scrolls.
//
// One stop for Tab: arrows, Page, Home and End move between lines, Enter shows all of one, Escape closes it (a WAI-ARIA listbox).

import { useMemo, useRef, useState } from 'preact/hooks'
import { GROUPS, type Group, type Line } from '../model/event_lines'
import { type LineFilter, type LineLog, LineView } from '../model/line_log'
import { withoutAnsi } from '../text/ansi'
import { clock, grouped, moment } from '../text/format'
import { Ansi, Empty } from './bits'
import { VirtualList } from './VirtualList'

const LINE_PX = 20
const PAGE_LINES = 20

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
  /** The line that the keyboard is at, by its key: lines before it may be dropped or filtered out. */
  const [activeKey, setActiveKey] = useState<number | null>(null)
  const list = useRef<HTMLDivElement>(null)
  const filter: LineFilter = useMemo(() => ({ hidden, text, turn }), [hidden, text, turn])
  const view = useMemo(() => new LineView(log, filter), [log, filter])
  const rows = view.update()
  const active = activeKey === null ? -1 : indexOfKey(rows, activeKey)

  const onKey = (event: KeyboardEvent): void => {
    if (event.key === 'Enter' || event.key === ' ') {
      const line = rows[active]
      if (line) setPicked(line)
    } else if (event.key === 'Escape') setPicked(null)
    else {
      const to = lineAfter(event.key, active, rows.length)
      if (to === null) return
      setActiveKey(rows[to]?.key ?? null)
      setFollow(to === rows.length - 1 && event.key === 'End')
    }
    event.preventDefault()
  }
  const pick = (line: Line): void => {
    setPicked(line)
    setActiveKey(line.key)
  }
  const close = (): void => {
    setPicked(null)
    list.current?.querySelector<HTMLElement>('[role=listbox]')?.focus()
  }
  const toggle = (group: Group): void => {
    const next = new Set(hidden)
    if (!next.delete(group)) next.add(group)
    setHidden(next)
  }
  return (
    <div class="event-log" ref={list}>
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
          role="listbox"
          label="Events"
          active={active < 0 ? undefined : { index: active, id: `line-${activeKey}` }}
          onKeyDown={onKey}
          count={rows.length}
          rowPx={LINE_PX}
          follow={follow}
          onFollow={setFollow}
          reveal={follow || active < 0 ? null : active}
          row={(index) => {
            const line = rows[index] as Line
            return (
              <LogLine
                key={line.key}
                line={line}
                place={index + 1}
                of={rows.length}
                isPicked={picked?.key === line.key}
                isActive={index === active}
                onPick={pick}
              />
            )
          }}
        />
      )}
      <footer class="log-foot">
        {rows.length === log.lines.length ? `${grouped(rows.length)} lines` : `${grouped(rows.length)} of ${grouped(log.lines.length)} lines`}
        {log.dropped > 0 && `, the oldest ${grouped(log.dropped)} are no longer in this page`}
      </footer>
      {picked && <PickedLine line={picked} onClose={close} />}
    </div>
  )
}

/** Where the line with this key is; -1 when it is not among them. Keys only grow. */
function indexOfKey(rows: readonly Line[], key: number): number {
  let low = 0
  let high = rows.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((rows[middle] as Line).key < key) low = middle + 1
    else high = middle
  }
  return rows[low]?.key === key ? low : -1
}

/** Where a key leads from the line `at`; from none, the arrows begin at the end, which is what one sees. */
function lineAfter(key: string, at: number, count: number): number | null {
  const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE_LINES, PageUp: -PAGE_LINES }
  if (count === 0) return null
  if (key === 'Home') return 0
  if (key === 'End') return count - 1
  const by = steps[key]
  if (by === undefined) return null
  return at < 0 ? count - 1 : Math.min(count - 1, Math.max(0, at + by))
}

interface LineProps {
  line: Line
  place: number
  of: number
  isPicked: boolean
  isActive: boolean
  onPick: (line: Line) => void
}

function LogLine({ line, place, of, isPicked, isActive, onPick }: LineProps) {
  return (
    <div
      id={`line-${line.key}`}
      role="option"
      aria-selected={isPicked}
      aria-posinset={place}
      aria-setsize={of}
      class={`line tone-${line.tone || 'plain'} group-${line.group} ${isPicked ? 'line-picked' : ''} ${isActive ? 'line-active' : ''}`}
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
    <aside
      class="picked"
      aria-label="The picked event"
      onKeyDown={(event) => {
        if (event.key === 'Escape') onClose()
      }}
    >
      <header>
        <strong>{line.type}</strong>
        <span class="dim picked-about">
          event {line.seq} · {moment(line.ts)}
          {line.turn !== null && ` · turn ${line.turn}`}
        </span>
        <button type="button" class="button quiet" onClick={onClose}>
          Close
        </button>
      </header>
      <pre class="block wrap" tabIndex={0} aria-label="The whole line">
        {withoutAnsi(line.text)}
      </pre>
    </aside>
  )
}

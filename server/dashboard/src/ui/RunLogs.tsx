// The work log and the decision log: whole, as they grow, and what this run has added to them.

import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import type { EpicLog, LogName } from '../api/contracts'
import { useEpicLog } from '../model/epic_log'
import type { LogPart } from '../model/run_model'
import { bytes, clock, plural } from '../text/format'
import { Empty } from './bits'

const NEAR_END_PX = 40

export function RunLogs({ runId, parts }: { runId: string; parts: Record<LogName, LogPart[]> }) {
  return (
    <div class="logs">
      <OneLog runId={runId} name="codys-log.md" title="Work log" parts={parts['codys-log.md']} />
      <OneLog runId={runId} name="decision-log.md" title="Decision log" parts={parts['decision-log.md']} />
    </div>
  )
}

function OneLog({ runId, name, title, parts }: { runId: string; name: LogName; title: string; parts: LogPart[] }) {
  const found = useEpicLog(runId, name, parts.length)
  const [wantsParts, setWantsParts] = useState(false)
  const log = found && 'log' in found ? found.log : null
  const showsParts = wantsParts || (found !== null && !log)
  const size = log ? log.size : 0
  return (
    <section class="one-log" aria-label={title}>
      <header>
        <h3>
          {title} <code class="dim">{name}</code>
        </h3>
        <span class="choice" role="group" aria-label={`What to show of ${name}`}>
          <button type="button" aria-pressed={!showsParts} disabled={!log} onClick={() => setWantsParts(false)}>
            All
          </button>
          <button type="button" aria-pressed={showsParts} onClick={() => setWantsParts(true)}>
            This run's
          </button>
        </span>
      </header>
      <p class="log-about dim small">{about(log, parts)}</p>
      {found === null && <p class="dim log-about">Loading …</p>}
      {found && 'absent' in found && <p class="dim small log-about">{found.absent}</p>}
      {showsParts ? (
        <Scrolled grown={parts.length} label={`What this run added to ${name}`}>
          {parts.length === 0 ? <Empty title="This run has added nothing yet" /> : parts.map(onePart)}
        </Scrolled>
      ) : (
        log && (
          <Scrolled grown={size} label={name}>
            {log.omittedBytes > 0 && <p class="dim small">… the first {bytes(log.omittedBytes)} are in the file only</p>}
            <pre class="wrap">{log.text}</pre>
          </Scrolled>
        )
      )}
    </section>
  )
}

function about(log: EpicLog | null, parts: LogPart[]): string {
  const said = parts.length ? plural(parts.length, 'addition') + ' by this run' : 'nothing added by this run yet'
  return log ? `${bytes(log.size)} · ${said}` : said
}

/** Stays at the end while what is in it grows, until the reader scrolls up. */
function Scrolled({ grown, label, children }: { grown: number; label: string; children: ComponentChildren }) {
  const box = useRef<HTMLDivElement>(null)
  const atEnd = useRef(true)
  useEffect(() => {
    if (box.current && atEnd.current) box.current.scrollTop = box.current.scrollHeight
  }, [grown])
  const onScroll = (): void => {
    const element = box.current
    if (element) atEnd.current = element.scrollTop + element.clientHeight > element.scrollHeight - NEAR_END_PX
  }
  return (
    <div class="log-parts" ref={box} onScroll={onScroll} tabIndex={0} role="region" aria-label={label}>
      {children}
    </div>
  )
}

const onePart = (part: LogPart, place: number) => (
  <article key={place}>
    <header>
      {part.turn !== null && <span>turn {part.turn}</span>}
      <time dateTime={part.ts}>{clock(part.ts)}</time>
    </header>
    {part.missingBytes > 0 && <p class="dim small">… {bytes(part.missingBytes)} before this are in the file only</p>}
    <pre class="wrap">{part.text.trim()}</pre>
  </article>
)

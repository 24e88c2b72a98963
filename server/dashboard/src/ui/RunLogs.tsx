// The work log and the decision log, as this run makes them grow.

import { useEffect, useRef } from 'preact/hooks'
import type { LogName } from '../api/contracts'
import type { LogPart } from '../model/run_model'
import { bytes, clock } from '../text/format'
import { Empty } from './bits'

const NEAR_END_PX = 40

export function RunLogs({ parts }: { parts: Record<LogName, LogPart[]> }) {
  return (
    <div class="logs">
      <OneLog name="codys-log.md" title="Work log" parts={parts['codys-log.md']} />
      <OneLog name="decision-log.md" title="Decision log" parts={parts['decision-log.md']} />
    </div>
  )
}

function OneLog({ name, title, parts }: { name: string; title: string; parts: LogPart[] }) {
  const box = useRef<HTMLDivElement>(null)
  const atEnd = useRef(true)
  useEffect(() => {
    if (box.current && atEnd.current) box.current.scrollTop = box.current.scrollHeight
  }, [parts.length])
  const onScroll = (): void => {
    const element = box.current
    if (element) atEnd.current = element.scrollTop + element.clientHeight > element.scrollHeight - NEAR_END_PX
  }
  return (
    <section class="one-log" aria-label={title}>
      <h3>
        {title} <code class="dim">{name}</code>
      </h3>
      {parts.length === 0 ? (
        <Empty title="This run has added nothing yet" />
      ) : (
        <div class="log-parts" ref={box} onScroll={onScroll} tabIndex={0} role="region" aria-label={`What this run added to ${name}`}>
          {parts.map((part, place) => (
            <article key={place}>
              <header>
                {part.turn !== null && <span>turn {part.turn}</span>}
                <time dateTime={part.ts}>{clock(part.ts)}</time>
              </header>
              {part.missingBytes > 0 && <p class="dim small">… {bytes(part.missingBytes)} before this are in the file only</p>}
              <pre class="wrap">{part.text.trim()}</pre>
            </article>
          ))}
        </div>
      )}
    </section>
  )
}

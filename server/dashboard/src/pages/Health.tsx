// How the server, its stores and its workers do, in plain words.

import type { ComponentChildren } from 'preact'
import { useEffect, useState } from 'preact/hooks'
import type { ArchiveHealth, Backlog, Health as HealthAnswer, Readiness, WorkerHealth } from '../api/contracts'
import { readHealth, readReadiness } from '../api/runs'
import { connection } from '../model/connection'
import { poll } from '../model/polling'
import { duration, plural } from '../text/format'
import { Notice } from '../ui/bits'

const REFRESH_MS = 3_000
/** The archive is some hundred milliseconds behind; what waits for a minute waits for somebody. */
const LATE_MS = 60_000

export function Health() {
  const [readiness, setReadiness] = useState<Readiness | null>(null)
  const [health, setHealth] = useState<HealthAnswer | null | undefined>(undefined)
  useEffect(() => {
    document.title = 'Health · Cody'
    connection.set({ kind: 'connecting' })
    return poll(REFRESH_MS, async (signal) => {
      setReadiness(await readReadiness(signal))
      setHealth(await readHealth(signal))
    })
  }, [])
  const checks = readiness?.checks ?? {}
  return (
    <div class="health">
      <div class="page-head">
        <h1>Health</h1>
      </div>
      {readiness ? <Verdict readiness={readiness} /> : <Notice>Looking …</Notice>}
      <section aria-labelledby="checks">
        <h2 id="checks">What runs rest on</h2>
        <dl class="checks">
          <Check name="Redis" said={checks.redis} about="Runs, their events and who works on them">
            {health?.redis.persistence}
          </Check>
          <Check name="SQL" said={checks.sql ?? health?.archive.state} about="The archive: every run, for as long as you keep it" />
          <Projector archive={health?.archive} />
          <Check name="Disk" said={checks.disk} about="Prompts and raw output of every turn" />
        </dl>
      </section>
      <section aria-labelledby="workers">
        <h2 id="workers">Workers</h2>
        <Workers health={health} />
        {health?.queued ? (
          <p class="waiting">
            <a href="/?status=queued">{plural(health.queued, 'run')}</a> {health.queued === 1 ? 'waits' : 'wait'} for a host that has room.
          </p>
        ) : null}
      </section>
    </div>
  )
}

function Verdict({ readiness }: { readiness: Readiness }) {
  if (!readiness.ready) return <Notice tone="bad">Runs can't be started now. What fails is marked below.</Notice>
  if (readiness.degraded.length === 0) return <Notice tone="good">Everything works. Runs can be started.</Notice>
  return (
    <Notice tone="warn">
      Runs can be started, but something is weaker than it should be:
      <ul>
        {readiness.degraded.map((one) => (
          <li key={one}>{one}</li>
        ))}
      </ul>
    </Notice>
  )
}

type Tone = 'ok' | 'bad' | 'warn' | 'unknown'

const TONE_WORDS: Record<Tone, string> = { ok: 'works', bad: 'fails', warn: 'is behind', unknown: 'is not known' }

/** `said` is the server's sentence; it begins with `ok` when all is well, and what follows is in parentheses. */
function Check({ name, said, about, children }: { name: string; said: string | undefined; about: string; children?: ComponentChildren }) {
  const tone: Tone = said === undefined ? 'unknown' : said.startsWith('ok') ? 'ok' : 'bad'
  const words = said?.startsWith('ok (') ? said.slice(4, -1) : said
  return (
    <Part name={name} tone={tone} about={about}>
      {words ?? 'not known'}
      {children && <p class="dim small">{children}</p>}
    </Part>
  )
}

function Part({ name, tone, about, children }: { name: string; tone: Tone; about: string; children: ComponentChildren }) {
  return (
    <div class={`check check-${tone}`}>
      <dt>
        <span class="status-dot" aria-hidden="true" />
        <span>
          {name} <span class="hidden">{TONE_WORDS[tone]}</span>
          <span class="check-about">{about}</span>
        </span>
      </dt>
      <dd>{children}</dd>
    </div>
  )
}

/** How far the archive is behind what Redis has. */
function Projector({ archive }: { archive: ArchiveHealth | undefined }) {
  const behind = archive ? [waits(archive.runs, 'of runs'), waits(archive.responses, 'of responses')].filter(Boolean) : []
  const late = Math.max(archive?.runs?.oldestMs ?? 0, archive?.responses?.oldestMs ?? 0) > LATE_MS
  const known = archive?.runs != null
  const tone: Tone = !known ? 'unknown' : archive?.halted.length ? 'bad' : late ? 'warn' : 'ok'
  return (
    <Part name="Projector" tone={tone} about="Takes what happens from Redis into the archive">
      {!known ? 'not known' : behind.length ? behind.join('; ') : 'Up to date: nothing waits'}
      {archive && (
        <p class="dim small">
          {archive.projects ? 'This process does it.' : 'This process leaves it to another: `cody projector`.'}
          {behind.length > 0 && ' What waits is safe in Redis.'}
        </p>
      )}
      {archive?.halted.map((one) => (
        <p key={one.runId} class="small">
          Stopped for <a href={`/runs/${one.runId}`}>{one.runId.slice(0, 8)}</a>: {one.reason}
        </p>
      ))}
    </Part>
  )
}

function waits(backlog: Backlog | null, what: string): string {
  if (!backlog?.waiting) return ''
  return `${plural(backlog.waiting, 'change')} ${what} ${backlog.waiting === 1 ? 'waits' : 'wait'}, the oldest for ${duration(backlog.oldestMs)}`
}

function Workers({ health }: { health: HealthAnswer | null | undefined }) {
  if (health === undefined) return <p class="dim">Loading …</p>
  if (health === null) return <p class="dim">Redis knows who works on what, and does not answer.</p>
  if (health.workers.length === 0) return <p class="dim">No worker has a run now.</p>
  return (
    <div class="scroll-x card" tabIndex={0} role="group" aria-label="Workers as a table">
      <table class="data">
        <thead>
          <tr>
            <th scope="col">Worker</th>
            <th scope="col" class="text">
              Host
            </th>
            <th scope="col" class="text">
              Runs
            </th>
            <th scope="col">Lease renewed</th>
          </tr>
        </thead>
        <tbody>
          {health.workers.map((worker) => (
            <WorkerRow key={`${worker.workerId} ${worker.host}`} worker={worker} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function WorkerRow({ worker }: { worker: WorkerHealth }) {
  return (
    <tr>
      <th scope="row">
        <code title={worker.workerId}>{worker.workerId.slice(0, 8)}</code>
      </th>
      <td class="text">{worker.host}</td>
      <td class="text">
        {worker.runs.map((runId) => (
          <a key={runId} class="run-link" href={`/runs/${runId}`} aria-label={`Run ${runId.slice(0, 8)}`}>
            {runId.slice(0, 8)}
          </a>
        ))}
      </td>
      <td>{duration(worker.leaseAgeMs)} ago</td>
    </tr>
  )
}

// How the server and its workers do, in plain words.

import { useEffect, useState } from 'preact/hooks'
import type { Health as HealthAnswer, Readiness, WorkerHealth } from '../api/contracts'
import { readHealth, readReadiness } from '../api/runs'
import { connection } from '../model/connection'
import { poll } from '../model/polling'
import { duration, plural } from '../text/format'
import { Notice } from '../ui/bits'

const REFRESH_MS = 3_000

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
  return (
    <div class="health">
      <div class="page-head">
        <h1>Health</h1>
      </div>
      {readiness && <Verdict readiness={readiness} />}
      <section aria-labelledby="checks">
        <h2 id="checks">Checks</h2>
        <dl class="checks">
          {Object.entries(readiness?.checks ?? {}).map(([name, said]) => (
            <div key={name} class={said.startsWith('ok') ? 'check-ok' : 'check-bad'}>
              <dt>
                <span class="status-dot" aria-hidden="true" />
                {TITLES[name] ?? name}
              </dt>
              <dd>{said}</dd>
            </div>
          ))}
          <Facts name="Redis, in detail" found={health?.redis} />
          <Facts name="Archive" found={health?.archive} />
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

const TITLES: Record<string, string> = { redis: 'Redis', sql: 'SQL', archive: 'Archive', disk: 'Disk' }

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

/** What the server tells of a part of it, as it tells it: a newer one may know more than this page. */
function Facts({ name, found }: { name: string; found: unknown }) {
  if (found === undefined || found === null) return null
  const said = typeof found === 'object' ? Object.entries(found).map(([key, value]) => `${words(key)} ${shown(key, value)}`) : [String(found)]
  return (
    <div>
      <dt>{name}</dt>
      <dd>{said.join(' · ')}</dd>
    </div>
  )
}

const words = (key: string): string => key.replace(/Ms$/, '').replace(/([A-Z])/g, ' $1').toLowerCase()

function shown(key: string, value: unknown): string {
  if (typeof value === 'number' && key.endsWith('Ms')) return duration(value)
  if (value === null) return '–'
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

function Workers({ health }: { health: HealthAnswer | null | undefined }) {
  if (health === undefined) return <p class="dim">Loading …</p>
  if (health === null) return <p class="dim">This server does not tell about workers.</p>
  const workers = health.workers ?? []
  if (workers.length === 0) return <p class="dim">No worker has a run now.</p>
  return (
    <div class="scroll-x" tabIndex={0} role="group" aria-label="Workers as a table">
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
          {workers.map((worker) => (
            <WorkerRow key={worker.workerId} worker={worker} />
          ))}
        </tbody>
      </table>
    </div>
  )
}

function WorkerRow({ worker }: { worker: WorkerHealth }) {
  const runs = worker.runs ?? []
  return (
    <tr>
      <th scope="row">
        <code>{worker.workerId.slice(0, 8)}</code>
      </th>
      <td class="text">{worker.host}</td>
      <td class="text">
        {runs.length === 0 && '–'}
        {runs.map((runId) => (
          <a key={runId} class="run-link" href={`/runs/${runId}`}>
            {runId.slice(0, 8)}
          </a>
        ))}
      </td>
      <td>{worker.leaseAgeMs == null ? '–' : `${duration(worker.leaseAgeMs)} ago`}</td>
    </tr>
  )
}

// One run, live.

import { useEffect, useMemo } from 'preact/hooks'
import { TERMINAL } from '../api/contracts'
import { useNow } from '../model/clock'
import { connection } from '../model/connection'
import { RunSession } from '../model/run_session'
import { useStore } from '../model/store'
import { go, place, withQuery } from '../router'
import { folderName } from '../text/format'
import { Empty, Notice, Tabs } from '../ui/bits'
import { EventLog } from '../ui/EventLog'
import { NextPrompt } from '../ui/prompts'
import { RunHeader } from '../ui/RunHeader'
import { RunLogs } from '../ui/RunLogs'
import { RunPlots } from '../ui/RunPlots'
import { TurnList } from '../ui/TurnList'
import { TurnPanel } from '../ui/TurnPanel'

const TABS = [
  { id: 'turn', title: 'Turn' },
  { id: 'events', title: 'Events' },
  { id: 'plots', title: 'Plots' },
  { id: 'logs', title: 'Logs' },
  { id: 'prompt', title: 'Next prompt' },
]

export function Run({ runId }: { runId: string }) {
  const session = useMemo(() => new RunSession(runId), [runId])
  useEffect(() => {
    connection.set({ kind: 'connecting' })
    session.start()
    return () => session.stop()
  }, [session])
  const run = useStore(session.snapshot)
  const problem = useStore(session.problem)
  const refused = useStore(session.refused)
  const notice = useStore(session.notice)
  const isOver = run !== null && TERMINAL.has(run.status)
  const now = useNow(!isOver)

  useEffect(() => {
    document.title = run ? `${folderName(run.workingDir)} · ${run.status} · Cody` : 'Run · Cody'
  }, [run?.workingDir, run?.status])

  const absent = problem ?? refused
  if (absent && !run) {
    return (
      <Empty isPage title="This run can't be shown">
        <p>{absent}</p>
        <a href="/">All runs</a>
      </Empty>
    )
  }
  if (!run) return <h1 class="dim loading">Loading the run …</h1>
  return (
    <>
      <RunHeader session={session} run={run} nowMs={now} />
      {refused && <Notice tone="bad">This page gets no further events of the run: {refused}</Notice>}
      {notice && <Notice tone={notice.tone}>{notice.text}</Notice>}
      <RunBody session={session} nowMs={now} />
    </>
  )
}

function RunBody({ session, nowMs }: { session: RunSession; nowMs: number }) {
  const version = useStore(session.version)
  const { query } = useStore(place)
  const { model, runId } = session
  const turns = useMemo(() => model.ordered, [model, version])
  const tab = TABS.find((one) => one.id === query.get('tab'))?.id ?? 'turn'
  const asked = Number(query.get('turn')) || null
  const latest = turns.at(-1)
  const turn = turns.find((one) => one.turn === asked) ?? latest
  const pick = (changes: Record<string, string | null>): void => go(withQuery(changes), { replace: true })
  const pickTurn = (number: number): void => {
    // The latest turn is followed when the next one begins; in the event log a turn is a filter.
    const follows = number === latest?.turn && tab !== 'events'
    pick({ turn: follows ? null : String(number), tab: tab === 'events' ? 'events' : null })
  }
  return (
    <div class="run-body">
      <TurnList turns={turns} picked={turn?.turn ?? null} follow={asked === null} nowMs={nowMs} onPick={pickTurn} />
      <section class="run-panel" aria-label="The run in detail">
        <Tabs tabs={TABS} at={tab} label="Parts of the run" onPick={(id) => pick({ tab: id === 'turn' ? null : id })} />
        <div id="tab-panel" class={`panel panel-${tab}`} role="tabpanel" aria-labelledby={`tab-${tab}`}>
          {tab === 'turn' && !turn && <Empty title="No turn has begun yet" />}
          {tab === 'turn' && turn && (
            <TurnPanel
              runId={runId}
              turn={turn}
              nowMs={nowMs}
              version={version}
              follow={asked === null}
              onEvents={() => pick({ tab: 'events' })}
            />
          )}
          {tab === 'events' && (
            <EventLog
              log={model.log}
              version={version}
              turn={asked}
              onTurn={(number) => pick({ turn: number === null ? null : String(number) })}
            />
          )}
          {tab === 'plots' && <RunPlots turns={turns} />}
          {tab === 'logs' && <RunLogs runId={runId} parts={model.parts} />}
          {tab === 'prompt' && <NextPrompt runId={runId} turns={turns.length} />}
        </div>
      </section>
    </div>
  )
}

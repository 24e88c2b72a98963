// A run in four plots over its turns, and the same numbers as a table.

import { useMemo } from 'preact/hooks'
import type { Turn } from '../model/run_model'
import { compact, duration, grouped } from '../text/format'
import { Empty } from './bits'
import { Plot, type Series } from './Plot'

const whole = (value: number): string => (Number.isInteger(value) ? compact(value) : '')
const time = (ms: number): string => (ms === 0 ? '0' : duration(ms))

export function RunPlots({ turns }: { turns: Turn[] }) {
  const { numbers, tokens, tests, files, took } = useMemo(() => seriesOf(turns), [turns])
  if (turns.length === 0) return <Empty title="No turns yet" />
  const longest = Math.max(...(took[0]?.values ?? [0]))
  return (
    <div class="plots-panel" tabIndex={0} role="region" aria-label="Plots">
      <div class="plots">
        <Plot title="Tokens per turn" turns={numbers} series={tokens} format={compact} summary={inAll(tokens)} />
        <Plot title="Tests per turn" turns={numbers} series={tests} format={whole} summary={inAll(tests)} />
        <Plot title="Files written per turn" turns={numbers} series={files} format={whole} summary={inAll(files)} />
        <Plot title="Turn duration" turns={numbers} series={took} format={time} summary={`The longest took ${duration(longest)}.`} />
      </div>
      <details class="section">
        <summary>The same as a table</summary>
        <TurnsTable turns={turns} />
      </details>
    </div>
  )
}

function inAll(series: Series[]): string {
  const sums = series.map((one) => `${grouped(one.values.reduce((all, value) => all + value, 0))} ${one.name}`)
  return `${sums.join(', ')} in all.`
}

function TurnsTable({ turns }: { turns: Turn[] }) {
  return (
    <div class="scroll-x" tabIndex={0} role="region" aria-label="Turns as a table">
      <table class="data">
        <thead>
          <tr>
            {['Turn', 'Status', 'Duration', 'Input', 'Cached', 'Output', 'Files', 'Passed', 'Failed'].map((title) => (
              <th key={title} scope="col">
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {turns.map((turn) => (
            <tr key={turn.turn}>
              <th scope="row">{turn.turn}</th>
              <td class="text">{turn.status}</td>
              <td>{turn.durationMs === null ? '–' : duration(turn.durationMs)}</td>
              <td>{grouped(turn.usage.inputTokens)}</td>
              <td>{grouped(turn.usage.cachedInputTokens)}</td>
              <td>{grouped(turn.usage.outputTokens)}</td>
              <td>{turn.filesWritten}</td>
              <td>{turn.testsPassed}</td>
              <td>{turn.testsFailed}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

function seriesOf(turns: Turn[]) {
  const of = (value: (turn: Turn) => number): number[] => turns.map(value)
  return {
    numbers: of((turn) => turn.turn),
    tokens: [
      { name: 'output', colour: '--plot-3', values: of((turn) => turn.usage.outputTokens) },
      { name: 'input', colour: '--plot-1', values: of((turn) => Math.max(0, turn.usage.inputTokens - turn.usage.cachedInputTokens)) },
      { name: 'cached', colour: '--plot-2', values: of((turn) => turn.usage.cachedInputTokens) },
    ],
    tests: [
      { name: 'failed', colour: '--plot-bad', values: of((turn) => turn.testsFailed) },
      { name: 'passed', colour: '--plot-good', values: of((turn) => turn.testsPassed) },
    ],
    files: [{ name: 'files', colour: '--plot-1', values: of((turn) => turn.filesWritten) }],
    took: [{ name: 'duration', colour: '--plot-1', values: of((turn) => turn.durationMs ?? 0) }],
  }
}

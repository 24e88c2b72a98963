// One small plot over the turns of a run: bars, stacked where there are several series.

import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'

export interface Series {
  name: string
  /** A custom property of the theme, such as `--plot-1`. */
  colour: string
  values: number[]
}

interface Props {
  title: string
  /** Said to those who can't see the plot. */
  summary: string
  turns: number[]
  series: Series[]
  format: (value: number) => string
}

const HEIGHT_PX = 176
const MAX_BAR_PX = 36
const TURN_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]

export function Plot({ title, summary, turns, series, format }: Props) {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const latest = useRef({ turns, series })
  latest.current = { turns, series }
  const shape = series.map((one) => one.name).join()

  useEffect(() => {
    const element = box.current
    if (!element) return
    const make = (): void => {
      plot.current?.destroy()
      const { turns, series } = latest.current
      plot.current = new uPlot(optionsOf(element, series, format, () => latest.current.series), dataOf(turns, series), element)
    }
    make()
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT_PX }))
    resized.observe(element)
    const theme = matchMedia('(prefers-color-scheme: dark)')
    theme.addEventListener('change', make)
    return () => {
      theme.removeEventListener('change', make)
      resized.disconnect()
      plot.current?.destroy()
      plot.current = null
    }
  }, [shape, format])

  useEffect(() => {
    plot.current?.setData(dataOf(turns, series))
  }, [turns, series])

  return (
    <figure class="plot">
      <figcaption>
        <span class="plot-title">{title}</span>
        {series.length > 1 && <Legend series={series} />}
      </figcaption>
      <div class="plot-box" ref={box} role="img" aria-label={`${title}. ${summary}`} />
    </figure>
  )
}

function Legend({ series }: { series: Series[] }) {
  return (
    <span class="plot-legend" aria-hidden="true">
      {series.map((one) => (
        <span key={one.name} class="plot-key">
          <svg width="10" height="10">
            <rect width="10" height="10" rx="2" style={{ fill: `var(${one.colour})` }} />
          </svg>
          {one.name}
        </span>
      ))}
    </span>
  )
}

/** Stacked: each series is drawn as the sum of itself and those after it, the tallest first. */
function dataOf(turns: number[], series: Series[]): uPlot.AlignedData {
  const stacked: number[][] = []
  let below: number[] = turns.map(() => 0)
  for (const one of [...series].reverse()) {
    below = below.map((value, place) => value + (one.values[place] ?? 0))
    stacked.unshift(below)
  }
  return [turns, ...stacked] as uPlot.AlignedData
}

function optionsOf(
  element: HTMLElement,
  series: Series[],
  format: (value: number) => string,
  now: () => Series[],
): uPlot.Options {
  const style = getComputedStyle(document.documentElement)
  const colour = (name: string): string => style.getPropertyValue(name).trim()
  const bars = uPlot.paths.bars?.({ size: [0.66, MAX_BAR_PX] })
  const look = { stroke: colour('--text-2'), font: '11px system-ui, sans-serif', ticks: { show: false }, gap: 4 }
  return {
    width: element.clientWidth || 320,
    height: HEIGHT_PX,
    padding: [8, 8, 0, 0],
    scales: {
      // Never fewer than four places: one turn alone would be a wall.
      x: { time: false, range: (_, low, high) => [(low ?? 1) - 0.6, Math.max(high ?? 1, (low ?? 1) + 3) + 0.6] },
      y: { range: (_, __, high) => [0, high && high > 0 ? high * 1.08 : 1] },
    },
    axes: [
      { ...look, grid: { show: false }, size: 24, incrs: TURN_STEPS, values: (plot, ticks) => ticks.map((tick) => (tick <= (plot.data[0].at(-1) ?? 0) ? String(tick) : '')) },
      { ...look, grid: { stroke: colour('--line'), width: 1 }, size: 46, values: (_, ticks) => ticks.map(format) },
    ],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    legend: { show: true, live: true },
    series: [
      { label: 'turn' },
      ...series.map((one, place) => ({
        label: one.name,
        fill: colour(one.colour),
        stroke: colour(one.colour),
        width: 0,
        points: { show: false },
        ...(bars ? { paths: bars } : {}),
        value: (_: uPlot, __: number, ___: number, index: number | null) =>
          index === null ? '–' : format(now()[place]?.values[index] ?? 0),
      })),
    ],
  }
}

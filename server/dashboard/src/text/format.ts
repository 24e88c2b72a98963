// Numbers, times and names for people. Pure: the time now is passed in.

/** 950 -> "950", 12_345 -> "12.3k", 4_200_000 -> "4.2M". */
export function compact(value: number): string {
  if (value < 1_000) return String(value)
  if (value < 999_950) return `${trimmed(value / 1_000)}k`
  if (value < 999_950_000) return `${trimmed(value / 1_000_000)}M`
  return `${trimmed(value / 1_000_000_000)}G`
}

const trimmed = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toFixed(1).replace(/\.0$/, ''))

export const grouped = (value: number): string => value.toLocaleString('en-US')

/** 20 -> "<0.1s", 420 -> "0.4s", 65_000 -> "1m 05s", 3_700_000 -> "1h 02m", 90_000_000 -> "1d 01h". */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds > 0 && seconds < 0.05) return '<0.1s'
  if (seconds < 9.95) return `${seconds.toFixed(1)}s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole}s`
  if (whole < 3_600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`
  if (whole < 86_400) return `${Math.floor(whole / 3_600)}h ${two(Math.floor((whole % 3_600) / 60))}m`
  return `${Math.floor(whole / 86_400)}d ${two(Math.floor((whole % 86_400) / 3_600))}h`
}

const two = (value: number): string => String(value).padStart(2, '0')

/** How long ago, in one unit: "now", "12s ago", "3m ago". */
export function ago(iso: string, nowMs: number): string {
  const seconds = Math.floor((nowMs - Date.parse(iso)) / 1000)
  if (!Number.isFinite(seconds)) return '–'
  if (seconds < 3) return 'now'
  if (seconds < 60) return `${seconds}s ago`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}m ago`
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)}h ago`
  return `${Math.floor(seconds / 86_400)}d ago`
}

/** 14:03:07 in the reader's time zone. */
export function clock(iso: string): string {
  const time = new Date(iso)
  return Number.isNaN(time.getTime()) ? '–' : `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`
}

/** 2026-01-31 14:03:07 in the reader's time zone. */
export function moment(iso: string): string {
  const time = new Date(iso)
  if (Number.isNaN(time.getTime())) return '–'
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock(iso)}`
}

export function bytes(value: number): string {
  if (value < 1024) return `${value} B`
  if (value < 1024 ** 2) return `${(value / 1024).toFixed(1)} KiB`
  if (value < 1024 ** 3) return `${(value / 1024 ** 2).toFixed(1)} MiB`
  return `${(value / 1024 ** 3).toFixed(1)} GiB`
}

export const plural = (count: number, one: string, many = `${one}s`): string => `${grouped(count)} ${count === 1 ? one : many}`

/** The last name of a path: `/home/me/shop/` -> "shop". */
export const folderName = (path: string): string => path.split('/').findLast(Boolean) ?? path

/** How long a run has been going, or went; null before it starts. */
export function elapsedMs(run: { startedAt: string | null; finishedAt: string | null }, nowMs: number): number | null {
  if (!run.startedAt) return null
  return (run.finishedAt ? Date.parse(run.finishedAt) : nowMs) - Date.parse(run.startedAt)
}

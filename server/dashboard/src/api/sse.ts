// Server-Sent Events, from text chunks to frames. Pure. Source: HTML Living Standard, section 9.2.6.

export interface Frame {
  id: string | null
  event: string
  data: string
}

/** Feed it chunks, cut anywhere; it gives the frames that are complete. Comments (keepalives) give nothing. */
export class SseParser {
  private rest = ''
  private id: string | null = null
  private event = ''
  private data: string[] = []
  /** What the server asked for with `retry:`, in milliseconds. */
  retryMs: number | null = null

  feed(chunk: string): Frame[] {
    const frames: Frame[] = []
    const text = this.rest + chunk
    let begin = 0
    for (;;) {
      const end = text.indexOf('\n', begin)
      if (end < 0) break
      const line = text.charCodeAt(end - 1) === 13 && end > begin ? text.slice(begin, end - 1) : text.slice(begin, end)
      begin = end + 1
      const frame = this.line(line)
      if (frame) frames.push(frame)
    }
    this.rest = text.slice(begin)
    return frames
  }

  private line(line: string): Frame | null {
    if (line === '') return this.dispatch()
    const colon = line.indexOf(':')
    if (colon === 0) return null
    const name = colon < 0 ? line : line.slice(0, colon)
    const raw = colon < 0 ? '' : line.slice(colon + 1)
    const value = raw.startsWith(' ') ? raw.slice(1) : raw
    if (name === 'data') this.data.push(value)
    else if (name === 'event') this.event = value
    else if (name === 'id' && !value.includes('\0')) this.id = value
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.retryMs = Number(value)
    return null
  }

  private dispatch(): Frame | null {
    const frame = this.data.length ? { id: this.id, event: this.event || 'message', data: this.data.join('\n') } : null
    this.id = null
    this.event = ''
    this.data = []
    return frame
  }
}

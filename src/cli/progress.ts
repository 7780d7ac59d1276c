/**
 * What a command is doing, on stderr: one line that is written over on a terminal; elsewhere (a file, a pipe, a CI log) a line now and then,
 * ever more seldom, so that a run of days leaves hundreds of lines and not a million.
 */
import { columnsOf, isLive, type Terminal } from './terminal.js';
import { plain } from './text.js';

export interface Progress {
  /** Shows where things are: parts in order of importance; those that do not fit are left off. */
  update(...parts: readonly string[]): void;
  /** Lines that stay. */
  note(...lines: readonly string[]): void;
  /** Takes the live line away. More may follow. */
  clear(): void;
}

const GAP = '  ';
/** Milliseconds between two pictures of the live line, and the least between two plain lines. */
const LIVE_PAUSE = 80;
const PLAIN_PAUSE = 10_000;
/** A plain line comes at most every twentieth of the time gone. */
const PLAIN_SHARE = 0.05;

export interface ProgressOptions {
  readonly quiet: boolean;
  readonly stream?: Terminal;
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds of a clock; for tests. */
  readonly now?: () => number;
}

export function openProgress({
  quiet,
  stream = process.stderr,
  env = process.env,
  now = () => performance.now(),
}: ProgressOptions): Progress {
  if (quiet) return { update: () => {}, note: () => {}, clear: () => {} };
  return isLive(stream, env) ? new LiveProgress(stream, now) : new PlainProgress(stream, now);
}

/** As many parts as fit, at least the first, cut. */
export function fit(parts: readonly string[], columns: number): string {
  let line = '';
  for (const part of parts) {
    const longer = line === '' ? part : line + GAP + part;
    if ([...longer].length > columns) break;
    line = longer;
  }
  return line === '' ? [...(parts[0] ?? '')].slice(0, columns).join('') : line;
}

class LiveProgress implements Progress {
  private shown = '';
  private last = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly stream: Terminal,
    private readonly now: () => number,
  ) {}

  update(...parts: readonly string[]): void {
    const time = this.now();
    if (time - this.last < LIVE_PAUSE) return;
    this.last = time;
    // The last column stays free: writing there makes some terminals begin a new line.
    const line = fit(parts.map(plain), columnsOf(this.stream) - 1);
    if (line === this.shown) return;
    this.shown = line;
    this.stream.write(`\r${line}\x1b[K`);
  }

  note(...lines: readonly string[]): void {
    const line = this.shown;
    this.clear();
    for (const each of lines) this.stream.write(`${plain(each)}\n`);
    if (line === '') return;
    this.shown = line;
    this.stream.write(line);
  }

  clear(): void {
    if (this.shown !== '') this.stream.write('\r\x1b[K');
    this.shown = '';
    this.last = Number.NEGATIVE_INFINITY;
  }
}

class PlainProgress implements Progress {
  private readonly began: number;
  private last: number;

  constructor(
    private readonly stream: Terminal,
    private readonly now: () => number,
  ) {
    this.began = now();
    this.last = this.began;
  }

  update(...parts: readonly string[]): void {
    const time = this.now();
    if (time - this.last < Math.max(PLAIN_PAUSE, PLAIN_SHARE * (time - this.began))) return;
    this.last = time;
    this.stream.write(`${plain(parts.join(GAP))}\n`);
  }

  note(...lines: readonly string[]): void {
    for (const line of lines) this.stream.write(`${plain(line)}\n`);
  }

  clear(): void {}
}

/**
 * One writer for a folder. A lock is a file `lock-N` in it that names the process that holds it; it is explained to others, not stolen: only
 * the lock of a process that surely ended is taken over.
 *
 * Taking over is a race, which no removal can win safely: between the look at a dead lock and its removal another process may have put a
 * living one in its place. So a dead lock stays until there is a newer one beside it, of the next number, which only one can create. Two
 * may still create different numbers when a third one came and went meanwhile; each looks again, sees the other and steps back.
 */
import { join } from 'node:path';
import { FailureError } from '../core/errors.js';
import { type Disk, DiskError, disk as realDisk } from './disk.js';
import { lookFor, type ProcessName, thisProcess } from './process.js';

/** Another process holds the folder, or may hold it. */
export class LockedError extends FailureError {}

export interface Lock {
  /** Gives the folder free; never throws, and done twice does nothing. A lock that could not be removed ends with its process. */
  release(): void;
}

interface Holder extends ProcessName {
  readonly purpose: string;
  /** ISO 8601, in UTC. */
  readonly since: string;
}

const NAME = /^lock-([1-9][0-9]{0,14})$/;
const MAX_LOCK = 4096;
/** Milliseconds after which a lock that cannot be read is no longer one that is being written. */
const GARBLED_AGE = 60_000;
const ATTEMPTS = 20;

/**
 * Makes this process the one writer of a folder, which must exist.
 * @param purpose what it does there, for the message to others
 * @param self for tests
 * @throws LockedError with who holds it and what to do; DiskError
 */
export function acquireLock(folder: string, purpose: string, disk: Disk = realDisk, self: ProcessName = thisProcess()): Lock {
  const text = `${JSON.stringify({ ...self, purpose, since: new Date().toISOString() } satisfies Holder)}\n`;
  for (let attempt = 1; ; attempt++) {
    const last = attempt === ATTEMPTS;
    let highest = 0;
    let obstacle: string | undefined;
    for (const [number, path] of locksIn(folder, disk)) {
      highest = Math.max(highest, number);
      const state = judge(path, disk, self);
      if (state.kind === 'held' || (state.kind === 'unreadable' && last)) throw new LockedError(explain(folder, path, state, self));
      if (state.kind === 'unreadable') obstacle = path;
    }
    // A lock without text is most likely being written at this moment: in a little while it says whose it is.
    const path = join(folder, `lock-${highest + 1}`);
    if (obstacle === undefined && disk.createNew(path, text)) {
      if (settle(folder, path, text, disk, self)) return lockOf(path, text, disk);
      if (last) throw new LockedError(`cannot lock ${folder}: other processes keep trying at the same time. Try again`);
    }
    // At random, so that two who hindered each other do not meet again.
    pause(Math.random() * Math.min(2 ** attempt, 50));
  }
}

/**
 * As `acquireLock`, for who makes room: on a full disk, which takes no lock, it is enough that nobody has one. Nor can anybody get one, until there
 * is room: what another's writing would leave must be removed first, and nothing that a newcomer would begin from.
 * @throws LockedError, DiskError
 */
export function lockToMakeRoom(folder: string, purpose: string, disk: Disk = realDisk, self: ProcessName = thisProcess()): Lock {
  try {
    return acquireLock(folder, purpose, disk, self);
  } catch (error) {
    if (!(error instanceof DiskError) || !['ENOSPC', 'EDQUOT'].includes(error.code)) throw error;
    for (const [, path] of locksIn(folder, disk)) {
      const state = judge(path, disk, self);
      if (state.kind === 'held' || state.kind === 'unreadable') throw new LockedError(explain(folder, path, state, self));
    }
    return { release: () => {} };
  }
}

/** The second look, with our lock in place: true if no other is alive, and then the dead ones are removed; else ours is taken back. */
function settle(folder: string, path: string, text: string, disk: Disk, self: ProcessName): boolean {
  try {
    const others = locksIn(folder, disk).filter(([, other]) => other !== path);
    if (others.every(([, other]) => ['dead', 'absent'].includes(judge(other, disk, self).kind))) {
      for (const [, other] of others) disk.remove(other);
      return true;
    }
  } catch (error) {
    giveBack(path, text, disk);
    throw error;
  }
  giveBack(path, text, disk);
  return false;
}

function lockOf(path: string, text: string, disk: Disk): Lock {
  let held = true;
  return {
    release: () => {
      if (held) giveBack(path, text, disk);
      held = false;
    },
  };
}

/** Removes our own lock, unless somebody removed it by hand and another one is in its place. */
function giveBack(path: string, text: string, disk: Disk): void {
  try {
    if (Buffer.from(disk.readFile(path, MAX_LOCK)).toString() === text) disk.remove(path);
  } catch {
    // It is gone, or it ends with this process.
  }
}

function locksIn(folder: string, disk: Disk): [number, string][] {
  return disk.list(folder).flatMap((name) => {
    const number = NAME.exec(name)?.[1];
    return number === undefined ? [] : [[Number(number), join(folder, name)]];
  });
}

type State =
  | { readonly kind: 'dead' | 'absent' | 'unreadable' }
  | { readonly kind: 'held'; readonly holder: Holder; readonly where: 'running' | 'elsewhere' };

function judge(path: string, disk: Disk, self: ProcessName): State {
  try {
    const holder = parse(disk, path);
    if (holder) {
      const where = lookFor(holder, self);
      return where === 'gone' ? { kind: 'dead' } : { kind: 'held', holder, where };
    }
    // A folder of such a name is none of ours, and its removal would take more than a lock.
    const { kind, modified } = disk.stat(path);
    return { kind: kind === 'file' && Date.now() - modified > GARBLED_AGE ? 'dead' : 'unreadable' };
  } catch (error) {
    if (error instanceof DiskError && error.code === 'ENOENT') return { kind: 'absent' };
    throw error;
  }
}

/** Undefined for what is no lock's text: it is being written, or a power cut garbled it. */
function parse(disk: Disk, path: string): Holder | undefined {
  let root: unknown;
  try {
    root = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(disk.readFile(path, MAX_LOCK)));
  } catch (error) {
    if (error instanceof DiskError && !['EISDIR', 'DSD_SPECIAL', 'DSD_LARGE', 'DSD_SHORT'].includes(error.code)) throw error;
    return undefined;
  }
  if (typeof root !== 'object' || root === null) return undefined;
  const fields = root as Readonly<Record<string, unknown>>;
  const texts = ['host', 'machine', 'boot', 'space', 'started', 'purpose', 'since'].every((name) => typeof fields[name] === 'string');
  return texts && Number.isSafeInteger(fields.pid) && (fields.pid as number) > 0 ? (root as Holder) : undefined;
}

function explain(folder: string, path: string, state: State, self: ProcessName): string {
  if (state.kind !== 'held')
    return (
      `${folder} is locked: ${path} is there and does not say by whom. It is being written at this moment, or a power cut spoilt it. ` +
      'Try again in a minute or two; if this stays, make sure that no other process writes there and remove that file'
    );
  const { holder, where } = state;
  const who = plain(`process ${holder.pid} on ${holder.host}, since ${holder.since} (${holder.purpose})`);
  if (where === 'running')
    return holder.pid === self.pid
      ? `${folder} is in use by this very process: ${who}. This is a mistake in the program`
      : `${folder} is in use by ${who}. Wait until it ends, or stop it with \`kill ${holder.pid}\`; the lock needs no removing`;
  return (
    `${folder} is locked by ${who}. That is another machine or container, so whether it still runs cannot be seen from here. ` +
    `Look there (\`ps -p ${holder.pid}\`); if it does not run any more, remove ${path} and try again`
  );
}

/** Without what would move a terminal's cursor: the text comes from a file. */
function plain(text: string): string {
  return text.replaceAll(/\p{C}/gu, '\ufffd');
}

/** Waits, in milliseconds, without the event loop. */
function pause(time: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, time);
}

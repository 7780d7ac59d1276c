/** Which process this is, so that another one can tell later whether it still runs: a number alone is given again to others. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { hostname } from 'node:os';

/** A process, named for good. Fields that a system does not know are ''. */
export interface ProcessName {
  readonly host: string;
  /** A hash of the machine's own number, since machines of one host name may share a disk. */
  readonly machine: string;
  /** A number made at each start of the system. */
  readonly boot: string;
  /** Within which the process numbers count: containers of one machine have their own. */
  readonly space: string;
  readonly pid: number;
  /** When the process started, in the system's ticks since its own start. */
  readonly started: string;
}

export function thisProcess(): ProcessName {
  const { pid } = process;
  const id = textOf('/etc/machine-id');
  return {
    host: hostname(),
    machine: id === '' ? '' : createHash('sha256').update(`dsd ${id}`).digest('hex').slice(0, 16),
    boot: textOf('/proc/sys/kernel/random/boot_id'),
    space: linkOf('/proc/self/ns/pid'),
    pid,
    started: parseStat(textOf(`/proc/${pid}/stat`))?.started ?? '',
  };
}

/** Whether a process still runs, as far as `self` can see: 'elsewhere' if it belongs to another machine, or to another container of this one. */
export function lookFor(name: ProcessName, self: ProcessName): 'running' | 'gone' | 'elsewhere' {
  if (name.host !== self.host || name.machine !== self.machine) return 'elsewhere';
  if (name.boot !== self.boot) return 'gone';
  if (name.space !== self.space) return 'elsewhere';
  const stat = parseStat(textOf(`/proc/${name.pid}/stat`));
  if (stat) return stat.started === name.started && !stat.ended ? 'running' : 'gone';
  // No /proc, or one that hides the processes of other users.
  try {
    process.kill(name.pid, 0);
    return 'running';
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM' ? 'running' : 'gone';
  }
}

/** Fields 3 and 22 of /proc/PID/stat. Field 2 is the program's name in parentheses, and may hold anything, spaces and parentheses too. */
export function parseStat(text: string): { readonly ended: boolean; readonly started: string } | undefined {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state, started] = [fields[0], fields[19]];
  if (state === undefined || started === undefined) return undefined;
  // Zombie or dead: it writes nothing any more, only its parent has not asked for its status.
  return { ended: 'ZXx'.includes(state), started };
}

/** '' where there is no such file. */
function textOf(path: string): string {
  try {
    return fs.readFileSync(path, 'latin1').trim();
  } catch {
    return '';
  }
}

function linkOf(path: string): string {
  try {
    return fs.readlinkSync(path);
  } catch {
    return '';
  }
}

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, test } from 'node:test';
import { FailureError } from '../../src/core/errors.js';
import { type Calls, openDisk } from '../../src/io/disk.js';
import { acquireLock, type Lock, LockedError, lockToMakeRoom } from '../../src/io/lock.js';
import { lookFor, parseStat, thisProcess } from '../../src/io/process.js';
import { type Choose, Race } from './racer.js';

let folder = '';
const children: Child[] = [];
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'dsd-lock-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) await child.kill();
  fs.rmSync(folder, { recursive: true, force: true });
});

const MODULE = new URL('../../src/io/lock.js', import.meta.url).href;
/** A line with a folder makes it try for the lock, an empty line release it; it answers each. */
const PROGRAM = `
  import { acquireLock } from ${JSON.stringify(MODULE)};
  import { createInterface } from 'node:readline';
  let lock;
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === '') lock?.release(), (lock = undefined), console.log('released');
    else try {
      lock = acquireLock(line, 'a test');
      console.log('won');
    } catch (error) {
      console.log(error.name + ': ' + error.message);
    }
  }`;

class Child {
  private readonly process: ChildProcess;
  private readonly lines: AsyncIterator<string>;

  constructor() {
    this.process = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.lines = createInterface({ input: this.process.stdout! })[Symbol.asyncIterator]();
    children.push(this);
  }

  get pid(): number {
    return this.process.pid!;
  }

  async ask(line: string): Promise<string> {
    this.process.stdin!.write(`${line}\n`);
    const { value, done } = await this.lines.next();
    assert.ok(!done, 'the child ended');
    return value;
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.kill('SIGKILL');
    await once(this.process, 'exit');
  }
}

const self = thisProcess();
const holder = (change: object = {}): string =>
  JSON.stringify({ ...self, purpose: 'dsd train', since: '2026-01-02T03:04:05.000Z', ...change });
const place = (name: string, text: string, secondsAgo = 0): void => {
  fs.writeFileSync(join(folder, name), text);
  const time = Date.now() / 1000 - secondsAgo;
  fs.utimesSync(join(folder, name), time, time);
};
const refused = (...patterns: RegExp[]): void => {
  const before = fs.readdirSync(folder);
  assert.throws(
    () => acquireLock(folder, 'a test'),
    (error) => {
      assert.ok(error instanceof LockedError && error instanceof FailureError, String(error));
      for (const pattern of patterns) assert.match(error.message, pattern);
      return true;
    },
  );
  assert.deepEqual(fs.readdirSync(folder), before);
};
/** The lock can be had, under the name, and nothing else is left. */
const taken = (name: string): Lock => {
  const lock = acquireLock(folder, 'a test');
  assert.deepEqual(fs.readdirSync(folder), [name]);
  return lock;
};

test('a lock names its process, refuses a second one, and is gone when released; releasing twice does nothing', () => {
  const lock = taken('lock-1');
  const { since, ...rest } = JSON.parse(fs.readFileSync(join(folder, 'lock-1'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual(rest, { ...self, purpose: 'a test' });
  assert.equal(new Date(String(since)).toISOString(), since);
  refused(/in use by this very process/);
  lock.release();
  assert.deepEqual(fs.readdirSync(folder), []);
  const other = taken('lock-1');
  lock.release();
  assert.deepEqual(fs.readdirSync(folder), ['lock-1']);
  other.release();
});

test('a living process holds it, one killed by SIGKILL does not', async () => {
  const child = new Child();
  assert.equal(await child.ask(folder), 'won');
  refused(/is in use by process \d+ on .+, since \d{4}-.*Z \(a test\)/, new RegExp(`\`kill ${child.pid}\``));
  assert.match(await new Child().ask(folder), /^LockedError: .* is in use by process/);
  await child.kill();
  assert.equal(fs.readdirSync(folder).length, 1);
  taken('lock-2');
});

test('a child that releases lets another in', async () => {
  const child = new Child();
  assert.equal(await child.ask(folder), 'won');
  assert.equal(await child.ask(''), 'released');
  taken('lock-1').release();
  assert.equal(await child.ask(folder), 'won');
});

test('a process number that was given to another process, or that is none, holds nothing', () => {
  place('lock-3', holder({ started: String(Number(self.started) + 1) }));
  taken('lock-4').release();
  place('lock-1', holder({ pid: 2 ** 22 + 1 }));
  place('lock-7', holder({ boot: 'another start of the system', pid: 1 }));
  taken('lock-8').release();
  place('lock-1', holder({ pid: process.ppid }));
  taken('lock-2').release();
});

test('of a process that ended and whose parent has not asked, nothing is left that writes', async () => {
  // The shell becomes `sleep`, which never asks for its child's status.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const [line] = (await once(createInterface({ input: parent.stdout! }), 'line')) as [string];
    const stat = (): string => fs.readFileSync(`/proc/${line}/stat`, 'latin1');
    while (!parseStat(stat())?.ended) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(lookFor({ ...self, pid: Number(line), started: parseStat(stat())!.started }, self), 'gone');
  } finally {
    parent.kill('SIGKILL');
  }
});

test('whether a process of another machine or container runs cannot be seen, and is explained', () => {
  for (const change of [
    { host: 'other', boot: 'x', pid: 2 ** 22 + 1 },
    { machine: 'other', boot: 'x' },
    { space: 'pid:[1]', pid: 2 ** 22 + 1 },
  ]) {
    place('lock-2', holder(change), 1e6);
    refused(
      /is locked by process/,
      /cannot be seen from here/,
      /since 2026-01-02T03:04:05.000Z \(dsd train\)/,
      /remove .*lock-2 and try again/,
    );
  }
  fs.rmSync(join(folder, 'lock-2'));
  taken('lock-1');
});

test('what a lock file says cannot move the cursor', () => {
  place('lock-1', holder({ host: 'ot\u001b[2Jher\n', purpose: 'x\u202ey' }));
  assert.throws(
    () => acquireLock(folder, 'a test'),
    (error) => error instanceof LockedError && !/\p{C}/u.test(error.message),
  );
});

test('a lock that is empty or garbled is respected for a minute, then dead', () => {
  const whole = holder({ pid: process.ppid });
  for (const text of ['', '{"host":', '\0'.repeat(100), 'null', '7', '{}', holder({ pid: '7' }), holder({ pid: 0 }), whole.padEnd(5000)]) {
    place('lock-1', text, 90);
    taken('lock-2').release();
  }
  for (const text of ['', '{"host":']) {
    place('lock-1', text, 30);
    refused(/lock-1 is there and does not say by whom/, /Try again in a minute/, /remove that file/);
  }
});

test('a folder called like a lock is never removed, other names are no locks', () => {
  fs.mkdirSync(join(folder, 'lock-1'));
  fs.utimesSync(join(folder, 'lock-1'), 0, 0);
  refused(/lock-1 is there and does not say by whom/);
  fs.rmdirSync(join(folder, 'lock-1'));
  for (const name of ['lock-0', 'lock-', 'lock-1x', 'xlock-1', 'lock']) place(name, 'x');
  acquireLock(folder, 'a test').release();
  assert.equal(fs.readdirSync(folder).length, 5);
});

test('a lock that was removed by hand and taken by another process is not released by the first', () => {
  const lock = taken('lock-1');
  place('lock-1', holder({ pid: process.ppid, purpose: 'other' }));
  lock.release();
  assert.deepEqual(fs.readdirSync(folder), ['lock-1']);
});

test('a release that the disk refuses is silent', () => {
  const stuck: Calls = {
    ...fs,
    rmSync: () => {
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    },
  };
  acquireLock(folder, 'a test', openDisk(stuck)).release();
  assert.deepEqual(fs.readdirSync(folder), ['lock-1']);
});

test('on a full disk room can be made where nobody has a lock, and only there', () => {
  const full = (code: string): ReturnType<typeof openDisk> =>
    openDisk({
      ...fs,
      writeSync: (() => {
        throw Object.assign(new Error(code), { code });
      }) as Calls['writeSync'],
    });
  place('lock-3', holder({ pid: 2 ** 22 + 1 }));
  for (const code of ['ENOSPC', 'EDQUOT']) {
    assert.throws(() => acquireLock(folder, 'a test', full(code)), { code });
    lockToMakeRoom(folder, 'a test', full(code)).release();
  }
  assert.throws(() => lockToMakeRoom(folder, 'a test', full('EIO')), { code: 'EIO' });
  for (const text of [
    holder({ pid: process.ppid, started: parseStat(fs.readFileSync(`/proc/${process.ppid}/stat`, 'latin1'))!.started }),
    '',
  ]) {
    place('lock-4', text);
    assert.throws(() => lockToMakeRoom(folder, 'a test', full('ENOSPC')), LockedError);
  }
  fs.rmSync(join(folder, 'lock-4'));
  const lock = lockToMakeRoom(folder, 'a test');
  assert.deepEqual(fs.readdirSync(folder), ['lock-4']);
  lock.release();
  assert.deepEqual(fs.readdirSync(folder), []);
});

test('of eight processes that race for a free or a dead lock, exactly one wins', async () => {
  const racers = Array.from({ length: 8 }, () => new Child());
  await Promise.all(racers.map((racer) => racer.ask('')));
  for (let round = 0; round < 30; round++) {
    const place = join(folder, String(round));
    fs.mkdirSync(place);
    for (let n = 0; n < round % 3; n++) fs.writeFileSync(join(place, `lock-${1 + 2 * n}`), holder({ boot: 'another' }));
    const answers = await Promise.all(racers.map((racer) => racer.ask(place)));
    assert.equal(answers.filter((answer) => answer === 'won').length, 1, answers.join('\n'));
    for (const answer of answers) assert.match(answer, /^(won$|LockedError: )/);
    assert.equal(fs.readdirSync(place).length, 1);
    await Promise.all(racers.map((racer) => racer.ask('')));
    assert.deepEqual(fs.readdirSync(place), []);
  }
});

test('in whatever order three of them make their calls, there are never two holders, and one gets it', async () => {
  const race = await Race.of(3);
  let number = 0;
  const check = (choose: Choose, what: string): void => {
    const place = join(folder, String(number++));
    fs.mkdirSync(place);
    fs.writeFileSync(join(place, 'lock-1'), holder({ boot: 'another' }));
    const { wins, most, failed } = race.run(place, choose);
    assert.ok(wins >= 1 && most === 1 && failed === 0, `${what}: ${wins} wins, ${most} at once, ${failed} failed`);
    assert.deepEqual(fs.readdirSync(place), []);
  };
  try {
    for (let seed = 0; seed < 200; seed++) check(byChance(seed), `seed ${seed}`);
    // The case that the second look is for: a third one comes and goes between the calls of the others.
    for (const before of [1, 3, 5, 6])
      for (let between = 0; between < 10; between++)
        for (const after of [3, 99])
          check(inTurns([0, before], [1, 'all'], [2, between], [0, after], [2, 99]), `turns ${before}, ${between}, ${after}`);
  } finally {
    await race.end();
  }
});

/** Some seeds change the racer at each call, others let one go on for long. */
function byChance(seed: number): Choose {
  let state = seed + 1;
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const stay = [0, 0.5, 0.8, 0.9][seed % 4]!;
  let last = 0;
  return (movable) => {
    if (random() >= stay || !movable.includes(last)) last = movable[Math.floor(random() * movable.length)]!;
    return last;
  };
}

/** Each racer in turn makes so many calls, or all it has; counted ones end where it holds the lock. Then whoever can move. */
function inTurns(...turns: [racer: number, calls: number | 'all'][]): Choose {
  return (movable, holding) => {
    for (; turns[0]; turns.shift()) {
      const turn = turns[0];
      if (!movable.includes(turn[0])) continue;
      if (turn[1] === 'all') return turn[0];
      if (turn[1]-- > 0 && !holding(turn[0])) return turn[0];
    }
    return movable[0]!;
  };
}

test('the state and the start time are found behind any program name', () => {
  const fields = `R ${Array.from({ length: 49 }, (_, i) => i + 4).join(' ')}`;
  for (const name of ['node', 'a b', '(', ') Z 1 (', 'x) R 7 7 7'])
    assert.deepEqual(parseStat(`17 (${name}) ${fields}`), { ended: false, started: '22' });
  assert.deepEqual(parseStat(`17 (x) ${fields.replace('R', 'Z')}`), { ended: true, started: '22' });
  assert.equal(parseStat(''), undefined);
  assert.equal(parseStat('17 (x) R 1'), undefined);
  assert.equal(lookFor(self, self), 'running');
});

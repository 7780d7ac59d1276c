import assert from 'node:assert/strict';
import { ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { FailureError } from '../../src/core/errors.js';
import { PictureError } from '../../src/data/job.js';
import { DecodePool } from '../../src/data/pool.js';
import { noise, put, temporaryFolder } from './corpus.js';

const POOL = fileURLToPath(new URL('../../src/data/pool.js', import.meta.url));
const WORKER = fileURLToPath(new URL('../../src/data/decode-worker.js', import.meta.url));

async function corpus(folder: string, count: number): Promise<string[]> {
  return Promise.all(
    Array.from({ length: count }, async (_, i) =>
      put(
        join(folder, `${i}.png`),
        await noise(20 + 13 * (i % 5), 24, i + 1)
          .png()
          .toBuffer(),
      ),
    ),
  );
}

test('any number of processes gives the same pictures, each to its own job', async (t) => {
  const paths = await corpus(temporaryFolder(t), 25);
  const results = [];
  for (const workers of [0, 1, 3]) {
    const pool = new DecodePool(workers);
    results.push(await Promise.all(paths.map((path) => pool.run({ kind: 'photo', path, size: 16, channels: 3 }))));
    await pool.close();
    await pool.close();
  }
  assert.equal(new Set(results[0]!.map((pixels) => Buffer.from(pixels).toString('base64'))).size, 25);
  assert.deepEqual(results[1], results[0]);
  assert.deepEqual(results[2], results[0]);
});

test("what fails a process that is no picture's fault is told as it is", async (t) => {
  const answer = `process.on('message', ({ region, position, orders }) =>
    process.send({ region, position, answers: orders.map(({ id }) => ({ id, failure: 'no addon: build it' })) }));`;
  const pool = new DecodePool(1, { script: pathToFileURL(put(join(temporaryFolder(t), 'fails.mjs'), answer)) });
  await assert.rejects(pool.run({ kind: 'photo', path: 'a.png', size: 16, channels: 3 }), (error: unknown) => {
    assert.ok(error instanceof FailureError && !(error instanceof PictureError));
    assert.equal(error.message, 'no addon: build it');
    return true;
  });
  await pool.close();
});

test('pixels come into their places, by the file or without one, past broken pictures', async (t) => {
  const folder = temporaryFolder(t);
  const good = await corpus(folder, 10);
  const bad = put(join(folder, 'bad.png'), 'no picture');
  const paths = good.flatMap((path, i) => (i % 3 === 1 ? [bad, path] : [path]));
  const results = [];
  const full = pathToFileURL(
    put(
      join(folder, 'full.mjs'),
      `import { openSync } from 'node:fs';
       process.argv[2] = String(openSync('/dev/full', 'r+'));
       await import(${JSON.stringify(WORKER)});`,
    ),
  );
  const byFile = { byFile: good.length, byMessage: 0 };
  const byMessage = { byFile: 0, byMessage: good.length };
  for (const [workers, options, came] of [
    [0, {}, { byFile: 0, byMessage: 0 }],
    [2, {}, byFile],
    [2, { folders: [] }, byMessage],
    [2, { folders: [join(folder, 'none'), folder] }, byFile],
    [2, { script: full }, byMessage],
  ] as const) {
    const pool = new DecodePool(workers, options);
    const batch = new Uint8Array(paths.length * 768);
    const outcomes = await Promise.allSettled(
      paths.map((path, i) => {
        const into = batch.subarray(i * 768, (i + 1) * 768);
        return pool.run({ kind: 'photo', path, size: 16, channels: 3 }, i % 4 === 3 ? undefined : { into, mirrored: i % 2 === 1 });
      }),
    );
    await pool.close();
    assert.deepEqual(pool.came, came);
    for (const [i, outcome] of outcomes.entries()) {
      if (paths[i] === bad) assert.ok(outcome.status === 'rejected' && outcome.reason instanceof PictureError);
      else assert.ok(outcome.status === 'fulfilled' && (outcome.value.buffer === batch.buffer) === (i % 4 !== 3));
    }
    results.push({
      batch,
      own: outcomes.map((outcome) => outcome.status === 'fulfilled' && Buffer.from(outcome.value).toString('base64')),
    });
  }
  assert.ok(results[0]!.batch.some((value) => value > 0));
  for (const result of results.slice(1)) assert.deepEqual(result, results[0]);
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.startsWith('dsd-')),
    [],
  );
});

test('a broken picture is a PictureError with its path, and the pool goes on', async (t) => {
  const folder = temporaryFolder(t);
  const [good] = await corpus(folder, 1);
  const bad = put(join(folder, 'bad.png'), 'no picture');
  for (const workers of [0, 1]) {
    const pool = new DecodePool(workers);
    const job = { kind: 'photo', size: 16, channels: 3 } as const;
    const outcomes = await Promise.allSettled([pool.run({ ...job, path: bad }), pool.run({ ...job, path: good! })]);
    await pool.close();
    const [broken, sound] = outcomes;
    assert.ok(broken?.status === 'rejected' && broken.reason instanceof PictureError);
    assert.equal(broken.reason.path, bad);
    assert.match(broken.reason.reason, /begins with "no picture"/);
    assert.equal(sound?.status, 'fulfilled');
  }
});

test('close gives up what waits, and a closed pool takes nothing', async (t) => {
  const paths = await corpus(temporaryFolder(t), 40);
  for (const workers of [0, 2]) {
    const pool = new DecodePool(workers);
    const outcomes = Promise.allSettled(paths.map((path) => pool.run({ kind: 'photo', path, size: 64, channels: 3 })));
    await pool.close();
    const rejected = (await outcomes).filter((outcome) => outcome.status === 'rejected');
    assert.ok(rejected.length > 30, `${rejected.length} of 40`);
    for (const { reason } of rejected) assert.match(String(reason), /closed/);
    await assert.rejects(pool.run({ kind: 'photo', path: paths[0]!, size: 8, channels: 3 }), /closed/);
  }
});

test('a process that dies is an error for all jobs that wait, and for later ones', async (t) => {
  const folder = temporaryFolder(t);
  const script = pathToFileURL(put(join(folder, 'dies.mjs'), "process.on('message', () => process.exit(3));"));
  const killed = pathToFileURL(put(join(folder, 'killed.mjs'), "process.on('message', () => process.kill(process.pid, 'SIGKILL'));"));
  const throws = pathToFileURL(put(join(folder, 'throws.mjs'), 'console.error = () => {}; process.exit(1);'));
  for (const [url, reason] of [
    [script, /died while it was at .*one\.png.*code 3/],
    [killed, /died while it was at .*one\.png.*ended by SIGKILL/],
    [throws, /died .*ended with code 1/],
  ] as const) {
    const pool = new DecodePool(2, { script: url });
    const job = { kind: 'photo', path: join(folder, 'one.png'), size: 8, channels: 3 } as const;
    const outcomes = await Promise.allSettled(Array.from({ length: 9 }, () => pool.run(job)));
    for (const outcome of outcomes) {
      assert.ok(outcome.status === 'rejected' && outcome.reason instanceof FailureError);
      assert.match(outcome.reason.message, reason);
    }
    await assert.rejects(pool.run(job), reason);
    await pool.close();
  }
});

test('a process that cannot be started is an error for all jobs that wait, and for later ones', async (t) => {
  const spawn = t.mock.method(ChildProcess.prototype as unknown as { spawn(options: object): number }, 'spawn', () => {
    throw Object.assign(new Error('spawn node ENOMEM'), { code: 'ENOMEM' });
  });
  const reason = /could not be started: spawn node ENOMEM; memory ran out: use fewer workers/;
  const job = { kind: 'photo', path: 'one.png', size: 8, channels: 3 } as const;
  const pool = new DecodePool(2);
  for (const outcome of await Promise.allSettled([pool.run(job), pool.run(job)])) {
    assert.ok(outcome.status === 'rejected' && outcome.reason instanceof FailureError);
    assert.match(outcome.reason.message, reason);
  }
  assert.equal(spawn.mock.callCount(), 1);
  await assert.rejects(pool.run(job), reason);
  await pool.close();
});

test('where no more files can be opened the message says so', async (t) => {
  const program = put(
    join(temporaryFolder(t), 'opens.mjs'),
    `import { openSync } from 'node:fs';
     import { DecodePool } from ${JSON.stringify(POOL)};
     const pool = new DecodePool(2);
     try { for (;;) openSync('/dev/null'); } catch {}
     const job = { kind: 'photo', path: 'one.png', size: 8, channels: 3 };
     for (const { reason } of await Promise.allSettled([pool.run(job), pool.run(job)])) console.log(reason.name, reason.message);
     await pool.close();
     console.log('closed');`,
  );
  const said = execFileSync('sh', ['-c', 'ulimit -n 100; exec "$0" "$1"', process.execPath, program], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  assert.match(
    said,
    /^(FailureError a decoding process could not be started: spawn .* EMFILE; .*raise `ulimit -n`, or use fewer .*\n){2}closed\n$/,
  );
});

test('an answer that makes no sense is an error of its job, not the end of the program', async (t) => {
  const folder = temporaryFolder(t);
  const job = { kind: 'photo', path: 'one.png', size: 8, channels: 3 } as const;
  const place = { into: new Uint8Array(192), mirrored: false };
  for (const [answers, error] of [
    ['undefined', TypeError],
    ['orders.map(({ id }) => ({ id, pixels: new Uint8Array(193) }))', RangeError],
  ] as const) {
    const answer = `process.on('message', ({ region, position, orders }) => process.send({ region, position, answers: ${answers} }));`;
    const pool = new DecodePool(1, { script: pathToFileURL(put(join(folder, 'answers.mjs'), answer)) });
    await assert.rejects(pool.run(job, place), error);
    await assert.rejects(pool.run(job, place), error);
    await pool.close();
  }
});

test('a process that a signal ends before its first answer is started again, once', async (t) => {
  const folder = temporaryFolder(t);
  const [path] = await corpus(folder, 1);
  const job = { kind: 'photo', path: path!, size: 16, channels: 3 } as const;
  const starts = join(folder, 'starts');
  const dies = (when: string, signal: string): { script: URL } => ({
    script: pathToFileURL(
      put(
        join(folder, 'dies.mjs'),
        `import { appendFileSync, readFileSync } from 'node:fs';
         const kill = () => { process.kill(process.pid, '${signal}'); return new Promise(() => setInterval(() => {}, 1000)); };
         appendFileSync(${JSON.stringify(starts)}, '.');
         const starts = readFileSync(${JSON.stringify(starts)}, 'utf8').length;
         ${when}
         await import(${JSON.stringify(WORKER)});
         let messages = 0;
         process.on('message', () => {
           if (++messages < 3 || ${when !== ''}) return;
           process.removeAllListeners('SIGTERM');
           kill();
         });`,
      ),
    ),
  });
  const whole = new DecodePool(0);
  const expected = await whole.run(job);
  for (const [when, signal, reason, count] of [
    ['if (starts === 1) await kill();', 'SIGTERM', undefined, 2],
    ['if (starts === 1) await kill();', 'SIGINT', undefined, 2],
    ['if (starts === 1) await kill();', 'SIGHUP', undefined, 2],
    ['await kill();', 'SIGTERM', /died while it was at .*0\.png.*ended by SIGTERM/, 2],
    ['if (starts === 1) await kill();', 'SIGKILL', /ended by SIGKILL/, 1],
    ['', 'SIGTERM', /ended by SIGTERM/, 1],
  ] as const) {
    put(starts, '');
    const pool = new DecodePool(1, dies(when, signal));
    const outcomes = [];
    for (let i = 0; i < 3; i++) outcomes.push(...(await Promise.allSettled([pool.run(job), pool.run(job)])));
    await pool.close();
    assert.equal(readFileSync(starts, 'utf8').length, count, when);
    for (const outcome of outcomes) if (outcome.status === 'fulfilled') assert.deepEqual(outcome.value, expected);
    if (reason === undefined) assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 6);
    else assert.match(String(outcomes.findLast((outcome) => outcome.status === 'rejected')?.reason), reason);
  }
  await whole.close();
});

test('a program that forgets to close its pool still ends, with its work done', async (t) => {
  const folder = temporaryFolder(t);
  const [path] = await corpus(folder, 1);
  const program = put(
    join(folder, 'forgets.mjs'),
    `import { DecodePool } from ${JSON.stringify(POOL)};
     const pixels = await new DecodePool(2).run({ kind: 'photo', path: ${JSON.stringify(path)}, size: 8, channels: 3 });
     console.log(pixels.length);`,
  );
  assert.equal(execFileSync(process.execPath, [program], { encoding: 'utf8', timeout: 30_000 }).trim(), '192');
});

test('signals leave the processes alone; when their program is killed, they end', async (t) => {
  const folder = temporaryFolder(t);
  const [path] = await corpus(folder, 1);
  const pids = put(join(folder, 'pids'), '');
  const tells = put(
    join(folder, 'tells.mjs'),
    `import { appendFileSync } from 'node:fs'; await import(${JSON.stringify(WORKER)}); appendFileSync(${JSON.stringify(pids)}, process.pid + '\\n');`,
  );
  const program = put(
    join(folder, 'decodes.mjs'),
    `import { pathToFileURL } from 'node:url';
     import { DecodePool } from ${JSON.stringify(POOL)};
     process.on('SIGINT', () => {});
     const pool = new DecodePool(2, { script: pathToFileURL(${JSON.stringify(tells)}) });
     const all = () => Promise.all(Array.from({ length: 8 }, () => pool.run({ kind: 'photo', path: ${JSON.stringify(path)}, size: 8, channels: 3 })));
     await all();
     console.log('first');
     process.stdin.once('data', async () => { await all(); console.log('second'); });`,
  );
  // What it starts has its standard error too, so that 'close' waits for all of them.
  const child = spawn(process.execPath, [program], { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  const said = child.stdout[Symbol.asyncIterator]();
  assert.equal(String((await said.next()).value).trim(), 'first');
  process.kill(-child.pid!, 'SIGINT'); // as a terminal does
  const workers = readFileSync(pids, 'utf8').trim().split('\n').map(Number);
  assert.equal(workers.length, 2);
  for (const pid of workers) for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.kill(pid, signal);
  child.stdin.write('more');
  assert.equal(String((await said.next()).value).trim(), 'second');
  const closed = once(child, 'close');
  child.kill('SIGKILL');
  await closed;
});

test('processes are not for a debugger, and have few threads', { timeout: 60_000 }, async (t) => {
  const tells = `process.on('message', ({ region, position, orders }) => {
    const failure = [process.env.NODE_OPTIONS, process.env.UV_THREADPOOL_SIZE].join('|');
    process.send({ region, position, answers: orders.map(({ id }) => ({ id, failure })) });
  });`;
  const script = pathToFileURL(put(join(temporaryFolder(t), 'tells.mjs'), tells));
  const { NODE_OPTIONS, UV_THREADPOOL_SIZE } = process.env;
  t.after(() => {
    Object.assign(process.env, { NODE_OPTIONS, UV_THREADPOOL_SIZE });
    if (NODE_OPTIONS === undefined) delete process.env.NODE_OPTIONS;
    if (UV_THREADPOOL_SIZE === undefined) delete process.env.UV_THREADPOOL_SIZE;
  });
  for (const [options, threads, found] of [
    ['--inspect-brk=127.0.0.1:0', '64', '|4'],
    ['--no-warnings --inspect=127.0.0.1:0 --title="a --inspect b"', '3', '--no-warnings --title="a --inspect b"|3'],
    ['--inspect-port 0 --no-warnings', '', '--no-warnings|4'],
  ] as const) {
    Object.assign(process.env, { NODE_OPTIONS: options, UV_THREADPOOL_SIZE: threads });
    const pool = new DecodePool(1, { script, graceMs: 100 });
    t.after(() => pool.close());
    await assert.rejects(pool.run({ kind: 'photo', path: 'a.png', size: 8, channels: 3 }), { message: found });
  }
});

test('close ends a process that does not end by itself', { timeout: 60_000 }, async (t) => {
  const folder = temporaryFolder(t);
  const script = pathToFileURL(put(join(folder, 'stays.mjs'), "process.on('message', () => {}); setInterval(() => {}, 1000);"));
  const pool = new DecodePool(1, { script, graceMs: 100 });
  const job = pool.run({ kind: 'photo', path: 'a.png', size: 8, channels: 3 });
  await Promise.all([pool.close(), assert.rejects(job, /closed/)]);
});

test('a number of processes that makes no sense is refused', () => {
  for (const workers of [-1, 1.5, Number.NaN, 1000]) assert.throws(() => new DecodePool(workers), RangeError);
});

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { FailureError } from '../../src/core/errors.js';
import { PictureError } from '../../src/data/job.js';
import { DecodePool } from '../../src/data/pool.js';
import { noise, put, temporaryFolder } from './corpus.js';

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

test('any number of threads gives the same pictures, each to its own job', async (t) => {
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

test('a thread that dies is an error for all jobs that wait, and for later ones', async (t) => {
  const folder = temporaryFolder(t);
  const script = pathToFileURL(
    put(join(folder, 'dies.mjs'), "import { parentPort } from 'node:worker_threads'; parentPort.on('message', () => process.exit(3));"),
  );
  const throws = pathToFileURL(put(join(folder, 'throws.mjs'), "throw new Error('will not start');"));
  for (const [url, reason] of [
    [script, /died while it was at .*one\.png.*code 3/],
    [throws, /will not start/],
  ] as const) {
    const pool = new DecodePool(2, url);
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

test('a program that forgets to close its pool still ends, with its work done', async (t) => {
  const folder = temporaryFolder(t);
  const [path] = await corpus(folder, 1);
  const pool = fileURLToPath(new URL('../../src/data/pool.js', import.meta.url));
  const program = put(
    join(folder, 'forgets.mjs'),
    `import { DecodePool } from ${JSON.stringify(pool)};
     const pixels = await new DecodePool(2).run({ kind: 'photo', path: ${JSON.stringify(path)}, size: 8, channels: 3 });
     console.log(pixels.length);`,
  );
  assert.equal(execFileSync(process.execPath, [program], { encoding: 'utf8', timeout: 30_000 }).trim(), '192');
});

test('a number of threads that makes no sense is refused', () => {
  for (const workers of [-1, 1.5, Number.NaN, 1000]) assert.throws(() => new DecodePool(workers), RangeError);
});

/** The file that a shell starts: libuv's threads, which read what other processes have decoded, are as many as there are cores, unless the user has said. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dsd, workplace } from './harness.js';

const { folder, remove } = workplace();
const probe = join(folder, 'probe.cjs');

before(() =>
  writeFileSync(
    probe,
    `const os = require('node:os');
     const cores = Number(process.env.CORES);
     if (cores > 0) os.availableParallelism = () => cores;
     process.on('exit', () =>
       require('node:fs').writeSync(2, JSON.stringify([process.env.UV_THREADPOOL_SIZE, require('node:fs').readdirSync('/proc/self/task').length])));`,
  ),
);
after(remove);

/** What the program has in its environment when it ends, and how many threads it is then. */
async function started(size: string | undefined, cores = 0): Promise<{ size: string; threads: number }> {
  const env = { NODE_OPTIONS: `--require ${probe}`, UV_THREADPOOL_SIZE: size, CORES: String(cores) };
  const { code, stderr } = await dsd(['--version'], { env });
  assert.equal(code, 0, stderr);
  const [found, threads] = JSON.parse(stderr) as [string, number];
  return { size: found, threads };
}

test('a thread a core, from 4 to 64, and they are started; what the user says holds', async () => {
  const wanted = Math.min(64, Math.max(4, availableParallelism()));
  assert.equal((await started(undefined)).size, String(wanted));
  const few = await started('5', 23);
  assert.equal(few.size, '5');
  for (const [cores, size] of [
    [1, 4],
    [23, 23],
    [300, 64],
  ] as const) {
    const { size: found, threads } = await started(cores === 1 ? '' : undefined, cores);
    assert.equal(found, String(size));
    assert.equal(threads - few.threads, size - 5, 'the pool was not in use before');
  }
});

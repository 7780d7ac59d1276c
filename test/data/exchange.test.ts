import assert from 'node:assert/strict';
import fs, { fstatSync, readdirSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Exchange } from '../../src/data/exchange.js';
import { DecodePool } from '../../src/data/pool.js';
import { noise, put, temporaryFolder } from './corpus.js';

/** Another function in the place of one of the system's, until the test ends. */
function instead<Name extends 'statfsSync' | 'unlinkSync'>(t: TestContext, name: Name, does: unknown): void {
  const mocked = t.mock.method(fs, name, does as (typeof fs)[Name]);
  syncBuiltinESMExports();
  t.after(() => {
    mocked.mock.restore();
    syncBuiltinESMExports();
  });
}

test('the file is where there is room for what will be in it and a little more', async (t) => {
  const [first, second] = [temporaryFolder(t), temporaryFolder(t)];
  let asked: string[] = [];
  instead(t, 'statfsSync', (folder: string) => {
    asked.push(folder);
    return { bavail: folder === first ? 2 ** 14 : 2 ** 15, bsize: 2 ** 12 }; // 64 and 128 MiB
  });
  for (const [bytes, found, folders] of [
    [0, 1, [first]],
    [50 * 2 ** 20, 1, [first]],
    [64 * 2 ** 20, 1, [first, second]],
    [128 * 2 ** 20, 0, [first, second]],
  ] as const) {
    asked = [];
    const exchange = new Exchange(bytes, [first, second]);
    assert.deepEqual(asked, folders, `${bytes} bytes`);
    assert.equal(exchange.fd === undefined ? 0 : 1, found);
    if (found === 1) assert.equal(fstatSync(exchange.fd!).nlink, 0, 'it has no name');
    await exchange.close();
  }
});

test("a pool of sixteen finds its file's room in a container's 64 MiB for pictures of 256 px, not of 512 px", async (t) => {
  const folder = temporaryFolder(t);
  const path = put(join(folder, 'a.png'), await noise(30, 24, 1).png().toBuffer());
  instead(t, 'statfsSync', () => ({ bavail: 2 ** 14, bsize: 2 ** 12 }));
  for (const [size, byFile] of [
    [256, 1],
    [512, 0],
  ] as const) {
    const pool = new DecodePool(16, { folders: [folder] });
    await pool.run({ kind: 'photo', path, size, channels: 3 });
    await pool.close();
    assert.deepEqual(pool.came, { byFile, byMessage: 1 - byFile });
  }
});

test('a file whose name cannot be removed is closed; its name is tried once more, and told', async (t) => {
  const warnings: string[] = [];
  t.mock.method(process, 'emitWarning', (warning: string) => warnings.push(warning));
  const { unlinkSync } = fs;
  for (const failures of [1, 2]) {
    const folder = temporaryFolder(t);
    let calls = 0;
    instead(t, 'unlinkSync', (path: string) => {
      if (++calls <= failures) throw new Error('EBUSY: resource busy');
      unlinkSync(path);
    });
    const before = readdirSync('/proc/self/fd').length;
    const exchange = new Exchange(1, [folder]);
    assert.equal(exchange.fd, undefined);
    assert.equal(readdirSync('/proc/self/fd').length, before);
    assert.equal(readdirSync(folder).length, failures - 1);
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /dsd-[0-9a-f]+ .*cannot be removed: EBUSY.*Remove it by hand/);
});

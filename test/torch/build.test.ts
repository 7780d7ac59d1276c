import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

interface Build {
  isSupported(version: string): boolean;
  findLibtorch(env: NodeJS.ProcessEnv): { version: string; cuda: boolean } | undefined;
  buildNative(options: { libtorch?: object; env: NodeJS.ProcessEnv }): Promise<{ built: boolean }>;
}
// From dist/test/torch; the script has no types, and is no part of the program.
const { isSupported, findLibtorch, buildNative } = (await import(
  new URL('../../../scripts/build-native.mjs', import.meta.url).href
)) as Build;

const folder = mkdtempSync(join(tmpdir(), 'dsd-build-'));
after(() => rmSync(folder, { recursive: true }));

/** A folder that looks like a libtorch. */
function fake(name: string, version: string, c10: string): string {
  const at = join(folder, name);
  const api = join(at, 'include/torch/csrc/api/include/torch');
  mkdirSync(api, { recursive: true });
  mkdirSync(join(at, 'lib'));
  const [major, minor, patch] = version.split('.');
  writeFileSync(
    join(api, 'version.h'),
    `#define TORCH_VERSION_MAJOR ${major}\n#define TORCH_VERSION_MINOR ${minor}\n#define TORCH_VERSION_PATCH ${patch}\n`,
  );
  for (const library of ['libtorch_cpu.so', 'libtorch.so']) writeFileSync(join(at, 'lib', library), '');
  writeFileSync(join(at, 'lib/libc10.so'), c10);
  return at;
}

test('1.13, and 2.6 or newer', () => {
  for (const version of ['1.13.0', '1.13.1', '2.6.0', '2.11.0', '3.0.1']) assert.equal(isSupported(version), true, version);
  for (const version of ['1.12.1', '1.14.0', '2.0.0', '2.5.1', '0.4.1']) assert.equal(isSupported(version), false, version);
});

test('LIBTORCH comes first, and its faults have names', () => {
  assert.deepEqual(findLibtorch({ LIBTORCH: fake('good', '2.11.0', '') })?.version, '2.11.0');
  assert.throws(() => findLibtorch({ LIBTORCH: folder }), /LIBTORCH is .* there is no libtorch in it/);
  assert.throws(() => findLibtorch({ LIBTORCH: fake('old', '2.1.2', '') }), /libtorch 2\.1\.2 .*needs 1\.13, or 2\.6 or newer/);
  assert.throws(() => findLibtorch({ LIBTORCH: fake('abi', '2.6.0', '_ZN3c105ErrorC1ENS_14SourceLocationESs') }), /old C\+\+ ABI/);
});

test('a second build does nothing; without a compiler it says what to install', async () => {
  assert.equal((await buildNative({ env: process.env })).built, false);
  await assert.rejects(
    buildNative({ env: { ...process.env, CXX: 'no-such-compiler' } }),
    /'no-such-compiler' was not found: install g\+\+/,
  );
  assert.equal((await buildNative({ env: process.env })).built, false);
});

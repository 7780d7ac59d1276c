import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, relative } from 'node:path';
import { after, test } from 'node:test';

interface Build {
  isSupported(version: string): boolean;
  findLibtorch(env: NodeJS.ProcessEnv): { version: string; source: string; libraries: string; cuda: boolean } | undefined;
  buildNative(options: { libtorch?: object; env: NodeJS.ProcessEnv }): Promise<{ built: boolean }>;
}
// From dist/test/torch; the script has no types, and is no part of the program.
const { isSupported, findLibtorch, buildNative } = (await import(
  new URL('../../../scripts/build-native.mjs', import.meta.url).href
)) as Build;

const { installPackages } = (await import(new URL('../../../scripts/system-packages.mjs', import.meta.url).href)) as {
  installPackages(packages: string[], log: (line: string) => void): Promise<void>;
};

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

test('LIBTORCH may be relative, or have its libraries where Debian has them', () => {
  const whole = fake('debian', '2.11.0', '');
  assert.equal(findLibtorch({ LIBTORCH: relative(process.cwd(), whole) })?.libraries, join(whole, 'lib'));
  const sorted = join(whole, 'lib/x86_64-linux-gnu');
  mkdirSync(sorted);
  for (const library of ['libtorch_cpu.so', 'libtorch.so', 'libc10.so']) renameSync(join(whole, 'lib', library), join(sorted, library));
  assert.equal(findLibtorch({ LIBTORCH: whole })?.libraries, sorted);
});

test("Python's torch is found whatever the current folder holds", { skip: !existsSync('/usr/bin/python3') }, () => {
  const packages = join(folder, 'site');
  mkdirSync(packages);
  const torch = fake('site/torch', '2.11.0', '');
  writeFileSync(join(torch, '__init__.py'), '');
  const here = process.cwd();
  mkdirSync(join(folder, 'here/torch'), { recursive: true });
  writeFileSync(join(folder, 'here/torch/__init__.py'), '');
  process.chdir(join(folder, 'here'));
  try {
    assert.equal(findLibtorch({ PYTHON: '/usr/bin/python3', PYTHONPATH: packages })?.libraries, join(torch, 'lib'));
  } finally {
    process.chdir(here);
  }
});

test('a mirror that is out of reach is not taken for a package that does not exist', async () => {
  const programs = join(folder, 'programs');
  mkdirSync(programs);
  for (const [name, text] of [
    ['apt-get', 'echo "W: Failed to fetch http://deb.debian.org/InRelease  Temporary failure resolving \'deb.debian.org\'"'],
    ['apt-cache', 'echo'],
    ['sudo', 'shift; exec "$@"'],
  ] as const) {
    writeFileSync(join(programs, name), `#!/bin/sh\n${text}\n`);
    chmodSync(join(programs, name), 0o755);
  }
  const { PATH } = process.env;
  process.env.PATH = programs + delimiter + PATH;
  try {
    await assert.rejects(
      installPackages(['g++'], () => {}),
      /could not fetch its package lists.*Check the network\.\n {2}Failed to fetch/s,
    );
  } finally {
    process.env.PATH = PATH;
  }
});

test('a second build does nothing; without a compiler it says what to install', async () => {
  assert.equal((await buildNative({ env: process.env })).built, false);
  await assert.rejects(
    buildNative({ env: { ...process.env, CXX: 'no-such-compiler' } }),
    /'no-such-compiler' was not found: install g\+\+/,
  );
  await assert.rejects(buildNative({ env: { ...process.env, CXX: 'no-such-cache g++' } }), /'no-such-cache' was not found/);
  if (!process.env.CXX?.trim()) assert.equal((await buildNative({ env: { ...process.env, CXX: '' } })).built, false);
});

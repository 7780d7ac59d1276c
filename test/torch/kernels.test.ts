/**
 * Kernels for CUDA, run on the CPU: test/native/*.cc, one program a kernel file, each under test/native/emulate.h and the address sanitizer.
 * A program prints a line a check and exits with 0 only if all hold.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const sources = fileURLToPath(new URL('../../../test/native', import.meta.url)); // from dist/test/torch
const folder = mkdtempSync(join(tmpdir(), 'dsd-kernels-'));
after(() => rmSync(folder, { recursive: true }));

const { CXX } = process.env;
const [compiler = 'g++', ...first] = CXX && existsSync(CXX) ? [CXX] : (CXX?.trim() || 'g++').split(/\s+/);
const common = [...first, '-std=c++17', '-O1', '-g1', '-w'];
/** What finds accesses out of bounds and makes uninitialised variables stand out; not every compiler has its libraries. */
const strict = ['-fsanitize=address,alignment', '-fno-sanitize-recover=all', '-ftrivial-auto-var-init=pattern'];

const hasCompiler = await run(compiler, [...first, '--version']).then(
  () => true,
  () => false,
);
const skip = hasCompiler ? false : `no C++ compiler (${compiler})`;

async function supported(flags: string[]): Promise<string[]> {
  const empty = join(folder, 'empty.cc');
  writeFileSync(empty, 'int main() {}\n');
  return run(compiler, [...common, ...flags, empty, '-o', join(folder, 'empty')]).then(
    () => run(join(folder, 'empty')).then(() => flags),
    () => [],
  );
}

interface Outcome {
  readonly output: string;
  readonly status: number;
}

async function execute(program: string): Promise<Outcome> {
  // The sanitizer's search for leaks needs rights that containers withhold.
  const env = { ...process.env, ASAN_OPTIONS: 'detect_leaks=0' };
  return run(program, { env, maxBuffer: 2 ** 26 }).then(
    ({ stdout, stderr }) => ({ output: stdout + stderr, status: 0 }),
    (error: { stdout?: string; stderr?: string; code?: number }) => ({
      output: `${error.stdout ?? ''}${error.stderr ?? ''}`,
      status: error.code ?? -1,
    }),
  );
}

describe('kernels for CUDA, on the CPU', { concurrency: availableParallelism(), skip }, async () => {
  const flags = hasCompiler ? [...common, ...(await supported(strict).catch(() => []))] : [];
  for (const name of readdirSync(sources).filter((file) => file.endsWith('.cc'))) {
    test(name, async () => {
      const program = join(folder, name.replace(/\.cc$/, ''));
      await run(compiler, [...flags, join(sources, name), '-o', program]);
      const { output, status } = await execute(program);
      const lines = output.split('\n').filter((line) => !line.startsWith('ok ') && !line.includes('makecontext'));
      assert.equal(status, 0, lines.slice(0, 40).join('\n'));
      assert.match(output, /^ok /m, 'a program that checks nothing');
    });
  }
});

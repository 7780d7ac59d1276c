/** What the command line says and how: progress, errors, numbers. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { loadWarning } from '../../src/cli/bench.js';
import { checkBlas } from '../../src/cli/doctor.js';
import { chooseDevice, inBatches } from '../../src/cli/engine.js';
import { fail } from '../../src/cli/fail.js';
import { hanging } from '../../src/cli/help.js';
import { range } from '../../src/cli/measure.js';
import { fit, openProgress } from '../../src/cli/progress.js';
import { invocation, quoted } from '../../src/cli/self.js';
import { count, duration, figure, short, table } from '../../src/cli/text.js';
import { FailureError, InterruptedError, UsageError } from '../../src/core/errors.js';
import { median } from '../../src/eval/median.js';

/** A stream that keeps what is written, and a clock that is set by hand. */
function scene(about: { isTTY?: boolean; columns?: number; env?: NodeJS.ProcessEnv; quiet?: boolean } = {}) {
  const written: string[] = [];
  let time = 0;
  const { isTTY = false, columns = 80, env = {}, quiet = false } = about;
  const stream = { isTTY, columns, write: (text: string) => written.push(text) };
  const progress = openProgress({ quiet, stream, env, now: () => time });
  const at = (ms: number): void => {
    time = ms;
  };
  return { progress, written, at };
}

test('on a terminal one line is written over, and lines that stay are put above it', () => {
  const { progress, written, at } = scene({ isTTY: true });
  progress.update('1/9', '11 %');
  at(10);
  progress.update('2/9', '22 %'); // too soon after the last
  at(1000);
  progress.update('3/9', '33 %');
  progress.note('stays');
  progress.clear();
  progress.clear();
  assert.deepEqual(written, ['\r1/9  11 %\x1b[K', '\r3/9  33 %\x1b[K', '\r\x1b[K', 'stays\n', '3/9  33 %', '\r\x1b[K']);
});

test('on a narrow terminal whole parts are left off from the end; the last column stays free', () => {
  assert.equal(fit(['123/456', 'loss 0.5', 'rank 12'], 17), '123/456  loss 0.5');
  assert.equal(fit(['123/456', 'loss 0.5'], 16), '123/456');
  assert.equal(fit(['123/456'], 4), '123/');
  const { progress, written } = scene({ isTTY: true, columns: 10 });
  progress.update('123/456789');
  assert.deepEqual(written, ['\r123/45678\x1b[K']);
});

test('elsewhere there are plain lines, ever more seldom', () => {
  const { progress, written, at } = scene();
  const times: number[] = [];
  for (let second = 0; second <= 4000; second++) {
    at(second * 1000);
    const before = written.length;
    progress.update(String(second), 'x');
    if (written.length > before) times.push(second);
  }
  progress.note('stays');
  assert.equal(written[0], '10  x\n');
  assert.equal(written.at(-1), 'stays\n');
  assert.ok(written.every((text) => !text.includes('\x1b') && !text.includes('\r')));
  assert.deepEqual(times.slice(0, 3), [10, 20, 30]);
  assert.equal((times.at(-1) as number) - (times.at(-2) as number) > 150, true);
});

test('a terminal that can do nothing gets plain lines; --quiet gets none', () => {
  const dumb = scene({ isTTY: true, env: { TERM: 'dumb' } });
  dumb.progress.update('1');
  dumb.progress.note('stays');
  assert.deepEqual(dumb.written, ['stays\n']);
  const quiet = scene({ isTTY: true, quiet: true });
  quiet.progress.update('1');
  quiet.progress.note('stays');
  assert.deepEqual(quiet.written, []);
});

test('an error for the user is its message and exit code; a bug asks to be reported; --debug shows causes', () => {
  const print = (error: unknown, debug = false, command?: string): [number, string] => {
    let text = '';
    const code = fail(error, { debug, ...(command ? { command } : {}), stream: { write: (part: string) => (text += part) } });
    return [code, text];
  };
  assert.deepEqual(print(new UsageError('wrong\nthis too'), false, 'train'), [2, 'error: wrong\n       this too\nSee: dsd train --help\n']);
  assert.deepEqual(print(new UsageError('wrong')), [2, 'error: wrong\nSee: dsd --help\n']);
  assert.deepEqual(print(new FailureError('full')), [1, 'error: full\n']);
  assert.deepEqual(print(new InterruptedError('stopped, all kept')), [75, 'stopped, all kept\n']);
  const [code, text] = print(new TypeError('x is not a function'));
  assert.equal(code, 1);
  assert.match(text, /^error: TypeError: x is not a function\nThis is a bug in dsd\. Please report it, .*--debug/);
  assert.match(print('a word')[1], /something was thrown that is no error: a word/);
  const [, long] = print(new FailureError('outer', { cause: new Error('inner', { cause: 'deep' }) }), true);
  assert.match(long, /^error: outer\nFailureError: outer\n +at [\s\S]*\ncaused by Error: inner\n[\s\S]*caused by deep\n$/);
  const [memory, advice] = print(
    Object.assign(new Error('out of memory in aten::matmul: [enforce fail at alloc_cpu.cpp:75] ...'), { code: 'ERR_TORCH_MEMORY' }),
  );
  assert.equal(memory, 1);
  assert.match(advice, /^error: out of memory in aten::matmul: use a smaller batch or model/);
});

test('out of memory names the batch and what to lower; other errors pass', async () => {
  const none = Object.assign(new Error('out of memory in aten::cat'), { code: 'ERR_TORCH_MEMORY' });
  const fails = (batch: number, error: Error): Promise<void> => inBatches(batch, () => Promise.reject(error));
  await assert.rejects(fails(64, none), new FailureError('out of memory with 64 pictures at a time: try --batch 32', { cause: none }));
  await assert.rejects(fails(1, none), /with 1 picture at a time: try a smaller model/);
  await assert.rejects(fails(64, new RangeError('other')), RangeError);
});

test('an error whose cause is itself is printed once', () => {
  const error = new Error('round');
  error.cause = error;
  let text = '';
  fail(error, { debug: true, stream: { write: (part: string) => (text += part) } });
  assert.equal(text.split('Error: round\n').length - 1, 2); // message and stack
});

test('colour only on a terminal that has it and whose user does not mind', () => {
  const print = (env: NodeJS.ProcessEnv, isTTY: boolean): string => {
    let text = '';
    const before = process.env;
    process.env = env;
    fail(new FailureError('x'), { debug: false, stream: { isTTY, write: (part: string) => (text += part) } });
    process.env = before;
    return text;
  };
  assert.equal(print({}, true), '\x1b[31merror:\x1b[39m x\n');
  for (const plain of [print({ NO_COLOR: '1' }, true), print({}, false), print({ TERM: 'dumb' }, true)]) assert.equal(plain, 'error: x\n');
});

test('numbers and times', () => {
  assert.deepEqual([0, 7, 65, 3725, 172799, 180000].map(duration), ['0:00', '0:07', '1:05', '1:02:05', '47:59:59', '2 d 2 h']);
  assert.deepEqual([duration(Number.NaN), duration(Number.POSITIVE_INFINITY), duration(-3)], ['?', '?', '0:00']);
  assert.deepEqual([0, 0.00012, 0.01234, 0.1234, 1.234, 12.34, 99.97, 123.4, 12345, Number.NaN].map(figure), [
    '0.00',
    '1.2e-4',
    '0.0123',
    '0.123',
    '1.23',
    '12.3',
    '100',
    '123',
    '12,345',
    'none',
  ]);
  assert.deepEqual(
    [512, 51424, 204_672_576, 1.2e12].map((n) => short(n)),
    ['512', '51.4k', '204.7M', '1.2T'],
  );
  assert.equal(count(25000), '25,000');
  assert.deepEqual(
    table(
      [
        ['a', '1'],
        ['bcd', '23'],
      ],
      [1],
    ),
    ['a     1', 'bcd  23'],
  );
  assert.deepEqual(
    hanging(
      [
        ['--a', 'one two three four five'],
        [`--${'b'.repeat(30)}`, 'x'],
      ],
      56,
    ),
    [`${'--a'.padEnd(30)}  one two three four five`, `--${'b'.repeat(30)}`, `${''.padEnd(30)}  x`],
  );
});

test('the next command is written as this one was, and for a shell', () => {
  assert.equal(invocation('/usr/local/bin/dsd', '/home/me'), 'dsd');
  assert.equal(invocation('/home/me/dsd/node_modules/.bin/dsd', '/home/me/dsd'), 'npx dsd');
  assert.equal(invocation('/home/me/.npm/_npx/25384ee8/node_modules/.bin/dsd', '/home/me'), 'npx dsd');
  assert.equal(invocation('/home/me/dsd/dist/src/cli/main.js', '/home/me/dsd'), 'node dist/src/cli/main.js');
  assert.equal(invocation('/opt/my dsd/main.js', '/home/me'), `node '/opt/my dsd/main.js'`);
  assert.equal(quoted(`it's`), `'it'\\''s'`);
});

test('a BLAS that makes training slow is known by its file', () => {
  const lib = '/usr/lib/x86_64-linux-gnu';
  for (const good of ['', `${lib}/openblas-openmp/libblas.so.3`, '/opt/intel/mkl/libmkl_rt.so'])
    assert.equal(checkBlas(good).state, 'ok', good);
  for (const slow of [`${lib}/blas/libblas.so.3.11.0`, `${lib}/openblas-pthread/libblas.so.3`, `${lib}/atlas/libblas.so.3`]) {
    assert.equal(checkBlas(slow).state, 'slow', slow);
    assert.match(checkBlas(slow).remedy ?? '', /libopenblas0-openmp/);
  }
});

test('a bench on a busy machine is warned of', () => {
  for (const idle of [0, 0.2, 0.5]) assert.equal(loadWarning(idle), undefined);
  assert.match(loadWarning(1.26) ?? '', /^warning: other programs are running.* load of the last minute is 1\.3.*figures will be off$/);
  assert.deepEqual([median([9, 1, 5]), median([4, 1, 2, 9]), range([5, 1, 9])], [5, 3, [1, 9]]);
});

test('a GPU is taken where there is one; one that is not there is refused with those that are', () => {
  const info = { version: '2.11.0', threads: 2, blas: '', bf16: false, path: '/nowhere/libtorch_cpu.so' };
  const two = { ...info, cuda: ['NVIDIA H100', 'NVIDIA L4'] };
  assert.deepEqual(
    [undefined, 'cpu', 'cuda', 'cuda:1'].map((name) => chooseDevice(name, two)),
    ['cuda', 'cpu', 'cuda', 'cuda:1'],
  );
  assert.equal(chooseDevice(undefined, { ...info, cuda: [] }), 'cpu');
  assert.throws(() => chooseDevice('cuda:2', two), /no GPU of this number\. Found: cuda:0 NVIDIA H100, cuda:1 NVIDIA L4/);
  assert.throws(() => chooseDevice('cuda', { ...info, cuda: [] }), /--device cuda: libtorch 2\.11\.0 at .* is built for the CPU only/);
});

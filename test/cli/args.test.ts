import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { parse } from '../../src/cli/args.js';
import { UsageError } from '../../src/core/errors.js';

const grammar = {
  name: 'try',
  operands: { names: 'RUN [PICTURE...]', min: 1, max: 2 },
  flags: {
    json: { kind: 'switch', about: '' },
    out: { kind: 'text', value: 'PATH', about: '' },
    set: { kind: 'text', value: 'A=B', repeat: true, about: '' },
    count: { kind: 'whole', value: 'N', min: 1, max: 10, about: '' },
    scale: { kind: 'number', value: 'S', about: '' },
    between: { kind: 'numbers', value: 'A,B', min: 0, max: 1, about: '' },
    solver: { kind: 'choice', of: ['euler', 'heun'], about: '' },
  },
  settings: () => ['train.batch', 'train.learningRate', 'train.count', 'a.weights.denoise', 'b.denoise'],
} as const;

const read = (...words: string[]) => parse(words, grammar);
const refused = (words: string[], message: RegExp): void => {
  assert.throws(
    () => read(...words),
    (error: unknown) => error instanceof UsageError && message.test(error.message),
    `${words.join(' ')}: ${message}`,
  );
};

test('flags and operands in any order, values apart or after =', () => {
  const { values, operands } = read(
    'run',
    '--count=3',
    '--set',
    'a=1',
    'x.png',
    '--json',
    '--set=b=2',
    '--between',
    '0.1,1',
    '--solver',
    'heun',
    '--scale',
    '-1.5e1',
  );
  assert.deepEqual(operands, ['run', 'x.png']);
  assert.deepEqual(values, { json: true, out: undefined, set: ['a=1', 'b=2'], count: 3, scale: -15, between: [0.1, 1], solver: 'heun' });
});

test('what is not given is false, undefined or an empty list', () => {
  assert.deepEqual(read('run').values, {
    json: false,
    out: undefined,
    set: [],
    count: undefined,
    scale: undefined,
    between: undefined,
    solver: undefined,
  });
});

test('after -- everything is an operand', () => {
  assert.deepEqual(read('--', '--json', '-x').operands, ['--json', '-x']);
});

test('what is wrong is named, with what to do', () => {
  refused(['run', '--conut', '3'], /no flag '--conut'; did you mean '--count'\?/);
  refused(['run', '-count', '3'], /no flag '-count'; did you mean '--count'\?/);
  refused(['run', '--xyzzy'], /no flag '--xyzzy'$/);
  refused(['run', '--__proto__', '3'], /no flag '--__proto__'/);
  refused(['run', '--train.batch=64'], /a setting is given by --set: --set train\.batch=64$/);
  refused(['run', '--train.batch', '64'], /a setting is given by --set: --set train\.batch=64$/);
  refused(['run', '--batch', '4'], /no flag '--batch'; a setting is given by --set: --set train\.batch=4$/);
  refused(['run', '--batch'], /--set train\.batch=VALUE$/);
  refused(['run', '--learning-rate', '-1', '--json'], /--set train\.learningRate=-1$/);
  refused(['run', '--weights.denoise', '--json'], /--set a\.weights\.denoise=VALUE$/);
  refused(['run', '--denoise=0'], /--set a\.weights\.denoise=0 or --set b\.denoise=0$/);
  refused(['run', '--atch', '4'], /no flag '--atch'$/); // a part of a word is no part of a name
  refused(['run', '--count'], /--count wants a value: --count N/);
  refused(['run', '--count', '--json'], /--count wants a value/);
  refused(['run', '--out='], /--out wants PATH, found an empty word/);
  refused(['run', '--json=yes'], /--json takes no value, found 'yes'/);
  refused(['run', '--count', '3', '--count', '4'], /--count was given twice/);
  refused(['run', '--solver', 'huen'], /one of euler, heun; found 'huen': did you mean 'heun'\?/);
  refused([], /wants RUN \[PICTURE\.\.\.\]/);
  refused(['run', 'a', 'b', 'c'], /found 'b', 'c' as well/);
});

test('numbers are numbers, whole where they must be, and in their range', () => {
  for (const text of ['0', '11', '1.5', '-1', 'x', '0x3', '1_0', ' 3', 'NaN', 'Infinity'])
    refused(['run', '--count', text], /--count wants a whole number from 1 to 10, found/);
  for (const text of ['x', '', '1,2', 'Infinity', '1e999']) refused(['run', `--scale=${text}`], /--scale wants a number, found/);
  for (const text of ['0,2', '0,', ',', '0,x']) refused(['run', '--between', text], /--between wants a number from 0 to 1, found/);
});

test('any words are read or refused as wrong usage, never otherwise', () => {
  const word = fc.oneof(
    fc.constantFrom('--json', '--out', '--set', '--count', '--count=3', '--', '-', '--solver=heun', 'run', '__proto__', '--constructor=1'),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), (words) => {
      try {
        const { operands } = read(...words);
        assert.ok(operands.every((operand) => words.includes(operand)));
      } catch (error) {
        if (!(error instanceof UsageError)) throw error;
      }
    }),
  );
});

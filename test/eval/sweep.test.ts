import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../src/core/errors.js';
import { evaluations, type SamplerOptions, sample } from '../../src/dsd/sampler.js';
import { toSvg } from '../../src/eval/plot.js';
import type { Distances } from '../../src/eval/reference.js';
import { combinations, drawSweep, parseAxis } from '../../src/eval/sweep.js';

const BASE: SamplerOptions = { solver: 'heun', steps: 25, guidance: 2, interval: [0.1, 1], shift: 0.7, target: 'clean' };

test('every combination once, the last axis turning fastest', () => {
  const axes = ['guidance=1,1.5', 'solver=euler,heun', 'start=0,0.25'].map(parseAxis);
  const found = combinations(BASE, axes);
  assert.deepEqual(
    found.map(({ guidance, solver, interval, steps }) => [guidance, solver, ...interval, steps]),
    [
      [1, 'euler', 0, 1, 25],
      [1, 'euler', 0.25, 1, 25],
      [1, 'heun', 0, 1, 25],
      [1, 'heun', 0.25, 1, 25],
      [1.5, 'euler', 0, 1, 25],
      [1.5, 'euler', 0.25, 1, 25],
      [1.5, 'heun', 0, 1, 25],
      [1.5, 'heun', 0.25, 1, 25],
    ],
  );
  assert.deepEqual(combinations(BASE, []), [BASE]);
  assert.deepEqual(combinations(BASE, [parseAxis('end=0.5'), parseAxis('steps=3')])[0], { ...BASE, interval: [0.1, 0.5], steps: 3 });
});

test('a sweep that is none is refused, with what was meant', () => {
  for (const [text, message] of [
    ['guidence=1', /found 'guidence=1': did you mean 'guidance'\?/],
    ['steps', /found 'steps'$/],
    ['steps=1,2.5', /whole numbers from 1; found '2\.5'/],
    ['steps=', /whole numbers from 1; found ''/],
    ['start=-0.1', /times from 0 to 1; found '-0\.1'/],
    ['end=1.5', /times from 0 to 1/],
    ['solver=rk4', /heun or euler; found 'rk4'/],
    ['guidance=1,1.0', /has a value twice: 1,1\.0/],
  ] as const)
    assert.throws(
      () => parseAxis(text),
      (error: Error) => error instanceof UsageError && message.test(error.message),
      text,
    );
  assert.throws(() => combinations(BASE, [parseAxis('steps=1'), parseAxis('steps=2')]), /steps is swept twice/);
});

const distances = (frechet: number, more: Partial<Distances> = {}): Distances => ({
  ...{ extractor: 'test', name: 'FD-test', frechet, precision: 0.5, recall: 0.25, count: 10 },
  ...more,
});
const dots = (svg: string): number => (svg.match(/<circle/g) ?? []).length;

test('a plot has a panel a measure, a line for each combination of the other settings, and real pictures beside them', () => {
  const axes = [parseAxis('steps=10,50'), parseAxis('guidance=1,2,3')];
  const points = combinations(BASE, axes).map((sampler, i) => ({ sampler, distances: distances(1 + i) }));
  const svg = toSvg(drawSweep(points, axes, distances(0.5), ['protocol'])!);
  assert.equal(dots(svg), 3 * 6);
  for (const label of ['steps 10', 'steps 50']) assert.equal(svg.match(new RegExp(`data-series="${label}"`, 'g'))?.length, 3, label);
  for (const text of ['FD-test by guidance', 'Precision', 'Recall', 'real pictures', 'protocol'])
    assert.ok(svg.includes(`>${text}<`), text);
  assert.doesNotMatch(svg, /NaN|undefined/);
  // The x of a dot is its value's, whatever the order in which they were given.
  const first = [...svg.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)"/g)].slice(0, 3).map(([, x, y]) => [Number(x), Number(y)] as const);
  assert.ok(first[0]![0] < first[1]![0] && first[1]![0] < first[2]![0]);
  assert.ok(first[0]![1] > first[1]![1] && first[1]![1] > first[2]![1], 'a larger distance is higher');
});

test('what a reference cannot give has no panel, and what is not swept no plot', () => {
  const axes = [parseAxis('guidance=3,1')];
  const lean = (frechet: number): Distances => ({ extractor: 'test', name: 'FID', frechet, count: 10 });
  const points = combinations(BASE, axes).map((sampler) => ({ sampler, distances: lean(sampler.guidance) }));
  const svg = toSvg(drawSweep(points, axes, undefined, [])!);
  assert.equal(dots(svg), 2);
  assert.doesNotMatch(svg, /Precision|real pictures/);
  assert.equal(drawSweep(points, [parseAxis('solver=heun'), parseAxis('guidance=1')], undefined, []), undefined);
});

test('NFE is how often the solver asks, guided or not', () => {
  const numbers = { mix: (a: number, x: number, b: number, y: number) => a * x + b * y, free: () => {} };
  const latents = { ...numbers, pair: (x: number) => x, halves: (x: number): [number, number] => [x, x] };
  for (const solver of ['euler', 'heun'] as const)
    for (const [steps, guidance] of [
      [1, 1],
      [2, 3],
      [25, 2],
    ] as const) {
      const options = { ...BASE, solver, steps, guidance };
      const solving = sample(latents, 1, options);
      let asked = 0;
      for (let next = solving.next(); !next.done; next = solving.next(0.5)) asked++;
      assert.equal(asked, evaluations(options), `${solver}, ${steps} steps`);
    }
});

test('solvers are put side by side at equal evaluations, not at equal steps', () => {
  const drawn = (...texts: readonly string[]): string => {
    const axes = texts.map(parseAxis);
    const points = combinations(BASE, axes).map((sampler, i) => ({ sampler, distances: distances(1 + i) }));
    return toSvg(drawSweep(points, axes, undefined, [])!);
  };
  const both = drawn('guidance=1,2,3', 'solver=euler,heun', 'steps=5,9');
  for (const text of ['FD-test by NFE', 'NFE: the solver&apos;s evaluations', 'guidance 3, solver heun'])
    assert.ok(both.includes(`>${text.replace('&apos;', "'")}<`), text);
  const across = (label: string): number[] =>
    [...both.matchAll(new RegExp(`<path d="M([\\d.]+) [\\d.]+L([\\d.]+) [^>]*data-series="${label}"`, 'g'))]
      .slice(0, 1)
      .flatMap(([, a, b]) => [Number(a), Number(b)]);
  const [euler, heun] = [across('guidance 1, solver euler'), across('guidance 1, solver heun')];
  assert.equal(euler[1], heun[0], 'nine steps of Euler cost what five of Heun do');
  const one = drawn('guidance=1,2', 'solver=euler,heun');
  for (const text of ['FD-test by guidance', 'solver euler, NFE 25', 'solver heun, NFE 49']) assert.ok(one.includes(`>${text}<`), text);
  assert.equal(dots(drawn('guidance=1', 'solver=euler,heun')), 3 * 2);
});

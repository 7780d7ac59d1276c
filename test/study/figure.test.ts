import assert from 'node:assert/strict';
import { test } from 'node:test';
import { axis, layOut, meanLine, type Plot, toPng, toSvg } from '../../src/eval/plot.js';
import { drawFigure } from '../../src/study/collapse/figure.js';
import { summarize } from '../../src/study/collapse/summary.js';
import { curve, result } from './curves.js';

const close = (actual: number, expected: number): void => assert.ok(Math.abs(actual - expected) < 0.011, `${actual} is not ${expected}`);

/** Every element closes, in order, and attributes are quoted: what an XML parser asks of our plain SVG. */
function parses(svg: string): void {
  const open: string[] = [];
  const rest = svg.replaceAll(/<(\/?)([a-z]+)((?:\s+[\w:-]+="[^"<>]*")*)\s*(\/?)>/g, (_, end: string, name: string, __, empty: string) => {
    if (end) assert.equal(open.pop(), name);
    else if (!empty) open.push(name);
    return '';
  });
  assert.deepEqual(open, []);
  assert.doesNotMatch(rest, /[<>]/);
  assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
}

/** Points of the drawn lines of a series, by panel from left to right. */
function lines(svg: string, series: string, line: string): [number, number][][] {
  const found = [...svg.matchAll(/<path d="([^"]+)"[^>]*data-series="([^"]*)" data-line="(\w+)"/g)];
  return found
    .filter(([, , name, number]) => name === series && number === line)
    .map(([, d = '']) => [...d.matchAll(/[ML](\S+) ([^ML]+)/g)].map(([, x, y]) => [Number(x), Number(y)]));
}

const plot = (panels: Plot['panels']): Plot => ({ title: 'a < b & "c"', subtitles: ['one'], xLabel: 'x', panels, legend: [] });

test('points lie where their values say, linear and logarithmic', () => {
  const line: [number, number][] = [
    [0, 1],
    [5, 10],
    [10, 100],
  ];
  const series = [{ label: 's', colour: '#123456', lines: [line] }];
  const svg = toSvg(
    layOut(
      plot([
        { title: 'p', scale: 'linear', series },
        { title: 'q', scale: 'log', series },
      ]),
    ),
  );
  parses(svg);
  const [linear = [], log = []] = lines(svg, 's', '0');
  const frames = [...svg.matchAll(/<path d="M([\d.]+) ([\d.]+)V([\d.]+)H([\d.]+)" fill="none"/g)].map((match) =>
    match.slice(1).map(Number),
  );
  const [left, top, bottom, right] = frames[0] as [number, number, number, number];
  close(linear[0]![0], left);
  close(linear[1]![0], (left + right) / 2);
  close(linear[2]![0], right);
  for (const [i, value] of [1, 10, 100].entries()) close(linear[i]![1], bottom - ((bottom - top) * value) / 100);
  // Equal ratios are equal steps, and all lies within the frame.
  close(log[0]![1] - log[1]![1], log[1]![1] - log[2]![1]);
  const frame = frames[1] as [number, number, number, number];
  for (const [x, y] of log) assert.ok(x >= frame[0] - 0.01 && x <= frame[3] + 0.01 && y >= frame[1] && y <= frame[2]);
});

test('values that cannot be drawn leave no trace and no NaN', () => {
  const line: [number, number][] = [
    [0, 0],
    [1, Number.NaN],
    [2, Number.POSITIVE_INFINITY],
    [3, 2],
  ];
  const series = [
    { label: 's', colour: '#000000', lines: [line, line] },
    { label: 'none', colour: '#000000', lines: [[], []] },
  ];
  for (const scale of ['linear', 'log', 'interval'] as const) {
    const svg = toSvg(layOut(plot([{ title: 'p', scale, series }])));
    parses(svg);
    assert.equal(lines(svg, 's', '0')[0]?.length, 2);
    parses(toSvg(layOut(plot([{ title: 'p', scale, series: [] }]))));
  }
});

test('ticks are round numbers inside the axis, few, and in order', () => {
  for (const [low, high] of [
    [0, 8],
    [0, 96],
    [0.013, 21],
    [0.07, 0.09],
    [1, 1],
    [0.001, 900],
  ] as const) {
    for (const scale of ['linear', 'log', 'interval'] as const) {
      const { ticks, at } = axis([low, high], scale, 7);
      assert.ok(ticks.length >= 2 && ticks.length <= 12, `${low} to ${high}: ${ticks}`);
      assert.deepEqual(
        ticks,
        [...ticks].sort((a, b) => a - b),
      );
      for (const tick of ticks) assert.ok(at(tick) >= -1e-9 && at(tick) <= 1 + 1e-9);
      for (const value of scale === 'log' ? [low, high].filter((v) => v > 0) : [low, high]) assert.ok(at(value) >= 0 && at(value) <= 1);
    }
  }
});

test('a mean is of what all lines have, geometric where the axis is', () => {
  const two = [
    [
      [0, 1],
      [1, 4],
      [2, 5],
    ],
    [
      [0, 3],
      [1, 16],
    ],
  ] as const;
  assert.deepEqual(meanLine(two, 'linear'), [
    [0, 2],
    [1, 10],
  ]);
  assert.ok(Math.abs(meanLine(two, 'log')[1]![1] - 8) < 1e-9);
});

test("the study's figure has a line for each seed and a mean, in each of three panels, and a PNG of it", async () => {
  const results = [0, 1].flatMap((seed) => [
    result('naive', seed, curve({ latentDeviation: (share) => 0.01 ** share, deviation: 0.1 })),
    result('norm', seed, curve({ effectiveRank: 6 + seed })),
  ]);
  const drawing = drawFigure(results, summarize(results), ['about']);
  const svg = toSvg(drawing);
  parses(svg);
  for (const name of ['naive', 'norm']) for (const line of ['0', '1', 'mean']) assert.equal(lines(svg, name, line).length, 3);
  assert.match(svg, /naive: velocity: variance-suppressed \(2 seeds\)/);
  const { default: sharp } = await import('sharp');
  const { data, info } = await sharp(await toPng(drawing))
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  assert.deepEqual([info.width, info.height], [2 * drawing.width, 2 * drawing.height]);
  const [x, y] = lines(svg, 'norm', 'mean')[0]![20]!;
  const at = (Math.round(2 * y) * info.width + Math.round(2 * x)) * 3;
  assert.deepEqual(
    [...data.subarray(at, at + 3)].map((value) => Math.round(value / 16)),
    [0, 10, 7],
  ); // #009e73, up to the palette
});

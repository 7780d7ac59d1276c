/** Line plots as SVG by hand: panels side by side with axes, ticks, curves and one legend. Knows nothing of what is plotted. */
import { lettering, textWidth } from '../data/lettering.js';

export interface Series {
  /** Of the legend, and in the SVG as data-series. */
  readonly label: string;
  /** A colour as SVG writes it. */
  readonly colour: string;
  readonly dashed?: boolean;
  /** A dot at each point of its lines, where points are few and between them nothing was measured. */
  readonly dots?: boolean;
  /** One line a repeat: thin each, and their mean thick where there are several. Points (x, y), x rising; those that are not finite are left out. */
  readonly lines: readonly (readonly (readonly [x: number, y: number])[])[];
}

export interface Panel {
  readonly title: string;
  /** Linear: from 0. Log: values that are not above 0 lie on the lower edge, and means are geometric. Interval: even, of what has no true zero, such as decibels. */
  readonly scale: 'linear' | 'log' | 'interval';
  readonly series: readonly Series[];
  /** A horizontal line with a word to it, such as a highest possible value. */
  readonly mark?: {
    readonly y: number;
    readonly label: string /** Where the word stands; right if not given. */;
    readonly side?: 'left' | 'right';
  };
}

export interface Plot {
  readonly title: string;
  readonly subtitles: readonly string[];
  /** Below each panel. */
  readonly xLabel: string;
  /** The axis along: linear if not given; or names, which lie at 0, 1, 2, ... */
  readonly x?: 'linear' | 'log' | readonly string[];
  readonly panels: readonly Panel[];
  /** A line a series: its colour, its label and more. */
  readonly legend: readonly { readonly colour: string; readonly dashed?: boolean; readonly text: string }[];
}

interface Label {
  readonly text: string;
  readonly x: number;
  /** Of the baseline. */
  readonly y: number;
  /** Font size in pixels. */
  readonly size: number;
  readonly anchor: 'start' | 'middle' | 'end';
  readonly bold?: boolean;
  readonly colour: string;
}

/** A plot laid out: shapes as SVG, and texts, which an SVG and a picture want drawn in different ways. */
export interface Drawing {
  readonly width: number;
  readonly height: number;
  readonly shapes: string;
  readonly labels: readonly Label[];
  readonly title: string;
}

const WIDTH = 1200;
const PANEL_HEIGHT = 330;
const SIDE = 24;
/** Left of each panel, for the numbers of its axis. */
const AXIS = 46;
const GAP = 14;
const LEGEND_LINE = 22;
const LEGEND_COLUMNS = 2;
const INK = '#222222';
const GREY = '#666666';
const GRID = '#e4e4e4';

/** Places everything. Coordinates are pixels of a drawing 1200 wide. */
export function layOut(plot: Plot): Drawing {
  const { title, subtitles, panels, legend } = plot;
  const labels: Label[] = [{ text: title, x: SIDE, y: 36, size: 20, anchor: 'start', bold: true, colour: INK }];
  for (const [i, text] of subtitles.entries()) labels.push({ text, x: SIDE, y: 58 + 18 * i, size: 13, anchor: 'start', colour: GREY });
  const top = 58 + 18 * subtitles.length + 36;
  const cell = (WIDTH - 2 * SIDE + GAP) / panels.length;
  const shapes: string[] = [];
  for (const [i, panel] of panels.entries()) {
    const box = { x: SIDE + i * cell + AXIS, y: top, width: cell - GAP - AXIS, height: PANEL_HEIGHT };
    const drawn = drawPanel(panel, box, plot);
    shapes.push(...drawn.shapes);
    labels.push(...drawn.labels);
  }
  const legendTop = top + PANEL_HEIGHT + 72;
  const rows = Math.ceil(legend.length / LEGEND_COLUMNS);
  for (const [i, { colour, dashed, text }] of legend.entries()) {
    const [column, row] = [Math.floor(i / rows), i % rows];
    const [x, y] = [SIDE + (column * (WIDTH - 2 * SIDE)) / LEGEND_COLUMNS, legendTop + row * LEGEND_LINE];
    shapes.push(`<path d="M${x} ${y - 4.5}h30" fill="none" stroke="${colour}" stroke-width="3"${dash(dashed)}/>`);
    labels.push({ text, x: x + 40, y, size: 13, anchor: 'start', colour: INK });
  }
  return { width: WIDTH, height: legendTop + rows * LEGEND_LINE, shapes: shapes.join('\n'), labels, title };
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function drawPanel(panel: Panel, box: Box, { x: along = 'linear', xLabel }: Plot): { shapes: string[]; labels: Label[] } {
  const { title, scale, series, mark } = panel;
  const points = series.flatMap(({ lines }) => lines.flat()).filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const xs = points.map(([x]) => x);
  const names = typeof along === 'string' ? undefined : along;
  const xAxis = names ? nameAxis(names.length) : along === 'log' ? axis(xs, 'log', 6) : within(axis(xs, 'linear', 6), Math.max(...xs, 0));
  const ys = [...points.map(([, y]) => y), ...(mark ? [mark.y] : [])];
  const whole = axis(ys, scale, 7);
  const yAxis = scale === 'linear' ? within(whole, Math.max(...ys, 0)) : whole;
  const px = (x: number): number => box.x + xAxis.at(x) * box.width;
  const py = (y: number): number => box.y + box.height - yAxis.at(y) * box.height;
  const [right, bottom] = [box.x + box.width, box.y + box.height];
  const shapes: string[] = [];
  const labels: Label[] = [
    { text: title, x: box.x - AXIS + 8, y: box.y - 22, size: 14, anchor: 'start', bold: true, colour: INK },
    { text: xLabel, x: box.x + box.width / 2, y: bottom + 38, size: 12, anchor: 'middle', colour: GREY },
  ];
  for (const tick of yAxis.ticks) {
    shapes.push(`<path d="M${short(box.x)} ${short(py(tick))}H${short(right)}" stroke="${GRID}"/>`);
    labels.push({ text: written(tick), x: box.x - 7, y: py(tick) + 4, size: 12, anchor: 'end', colour: GREY });
  }
  for (const tick of xAxis.ticks) {
    shapes.push(`<path d="M${short(px(tick))} ${short(bottom)}v5" stroke="${GREY}"/>`);
    labels.push({ text: names?.[tick] ?? written(tick), x: px(tick), y: bottom + 19, size: 12, anchor: 'middle', colour: GREY });
  }
  if (mark) {
    shapes.push(`<path d="M${short(box.x)} ${short(py(mark.y))}H${short(right)}" stroke="${GREY}" stroke-dasharray="2 3"/>`);
    const [x, anchor] = mark.side === 'left' ? ([box.x + 6, 'start'] as const) : ([right - 4, 'end'] as const);
    labels.push({ text: mark.label, x, y: py(mark.y) - 5, size: 11, anchor, colour: GREY });
  }
  shapes.push(`<path d="M${short(box.x)} ${short(box.y)}V${short(bottom)}H${short(right)}" fill="none" stroke="${GREY}"/>`);
  for (const { label, colour, dashed, dots, lines } of series) {
    const style = `fill="none" stroke="${colour}" stroke-linejoin="round"${dash(dashed)} data-series="${escapeXml(label)}"`;
    const paths = lines.map((line) => path(line, px, py));
    const thin = lines.length > 1;
    for (const [i, d] of paths.entries())
      if (d !== '')
        shapes.push(`<path d="${d}" ${style} data-line="${i}" ${thin ? 'stroke-width="1" opacity="0.45"' : 'stroke-width="2.2"'}/>`);
    for (const [x, y] of dots ? lines.flat() : [])
      if (Number.isFinite(x) && Number.isFinite(y))
        shapes.push(`<circle cx="${short(px(x))}" cy="${short(py(y))}" r="3.5" fill="${colour}"/>`);
    const mean = thin ? path(meanLine(lines, scale), px, py) : '';
    if (mean !== '') shapes.push(`<path d="${mean}" ${style} data-line="mean" stroke-width="2.2"/>`);
  }
  return { shapes, labels };
}

function path(line: Series['lines'][number], px: (x: number) => number, py: (y: number) => number): string {
  const finite = line.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  return finite.map(([x, y], i) => `${i === 0 ? 'M' : 'L'}${short(px(x))} ${short(py(y))}`).join('');
}

/** Means at those x at which every line has a value. */
export function meanLine(lines: Series['lines'], scale: Panel['scale']): [number, number][] {
  const [first = [], ...others] = lines.map((line) => new Map(line.filter(([, y]) => Number.isFinite(y))));
  const to = scale === 'log' ? (y: number): number => Math.log(Math.max(y, Number.MIN_VALUE)) : (y: number): number => y;
  const from = scale === 'log' ? Math.exp : (y: number): number => y;
  return [...first].flatMap(([x, y]) => {
    const all = [y, ...others.map((line) => line.get(x))].filter((value) => value !== undefined);
    return all.length === lines.length ? [[x, from(all.reduce((sum, value) => sum + to(value), 0) / all.length)] as [number, number]] : [];
  });
}

interface Axis {
  readonly ticks: readonly number[];
  /** From 0, the lower or left end, to 1. */
  readonly at: (value: number) => number;
}

/** An axis that holds all values, with at most `most` ticks or so, its ends among them where it is even. */
export function axis(values: readonly number[], scale: Panel['scale'], most: number): Axis {
  const usable = scale === 'log' ? values.filter((value) => value > 0) : values;
  const [low, high] = usable.length === 0 ? [scale === 'log' ? 0.1 : 0, 1] : [Math.min(...usable), Math.max(...usable)];
  if (scale === 'interval') return low === high ? linearAxis(low - 1, high + 1, most) : linearAxis(low, high, most);
  return scale === 'log' ? logAxis(low, high, most) : linearAxis(Math.min(0, low), high === 0 && low === 0 ? 1 : Math.max(0, high), most);
}

/** As many places side by side. */
const nameAxis = (count: number): Axis => ({ ticks: Array.from({ length: count }, (_, i) => i), at: (value) => (value + 0.5) / count });

/** The axis cut off at its last value, with the ticks up to there. */
function within({ ticks, at }: Axis, last: number): Axis {
  const [start, end] = [at(ticks[0] ?? 0), at(last)];
  return end > start
    ? { ticks: ticks.filter((tick) => tick <= last * (1 + 1e-9)), at: (value) => (at(value) - start) / (end - start) }
    : { ticks, at };
}

function linearAxis(low: number, high: number, most: number): Axis {
  const rough = (high - low) / Math.max(1, most - 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999) as number;
  const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  return { ticks, at: (value) => (value - first * step) / ((last - first) * step) };
}

function logAxis(low: number, high: number, most: number): Axis {
  // At least a factor of four, so that there are ticks to read by.
  const spare = Math.max(0.03, (Math.log10(4) - Math.log10(high / low)) / 2);
  const [bottom, top] = [Math.log10(low) - spare, Math.log10(high) + spare];
  const decades = Array.from({ length: Math.ceil(top) - Math.floor(bottom) + 1 }, (_, i) => Math.floor(bottom) + i);
  const among = (of: readonly number[]): number[] =>
    decades
      .flatMap((decade) => of.map((n) => Number((n * 10 ** decade).toPrecision(12))))
      .filter((n) => Math.log10(n) >= bottom && Math.log10(n) <= top);
  const [fine, middle, coarse] = [among([1, 2, 3, 5, 7]), among([1, 2, 5]), among([1])];
  const ticks = fine.length <= most ? fine : middle.length <= most + 2 ? middle : coarse;
  return { ticks, at: (value) => (Math.log10(Math.max(value, 10 ** bottom)) - bottom) / (top - bottom) };
}

/** A tick's number: 0.05, 20, 100,000. */
const written = (value: number): string => (Math.abs(value) >= 1000 ? value.toLocaleString('en-GB') : String(Number(value.toPrecision(6))));
const short = (value: number): string => String(Number(value.toFixed(2)));
const dash = (dashed: boolean | undefined): string => (dashed ? ' stroke-dasharray="6 4"' : '');
const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

/** The drawing as SVG. @param labelled false to leave the texts out */
export function toSvg({ width, height, shapes, labels, title }: Drawing, labelled = true): string {
  const texts = labels.map(
    ({ text, x, y, size, anchor, bold, colour }) =>
      `<text x="${short(x)}" y="${short(y)}" font-size="${size}" fill="${colour}"${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}${bold ? ' font-weight="bold"' : ''}>${escapeXml(text)}</text>`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif">`,
    `<title>${escapeXml(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    shapes,
    ...(labelled ? texts : []),
    '</svg>',
    '',
  ].join('\n');
}

/** Pixels of the PNG to one of the SVG. */
const SHARPNESS = 2;

/** The drawing as PNG, 2400 pixels wide. Its letters are our own strokes: fonts may be absent, and then a machine draws none. */
export async function toPng(drawing: Drawing): Promise<Buffer> {
  const { default: sharp } = await import('sharp');
  const texts = drawing.labels.map(({ text, x, y, size, anchor, bold, colour }) => {
    const height = size * 0.68 * SHARPNESS * (bold ? 1.04 : 1);
    const back = anchor === 'start' ? 0 : textWidth(text, height) * (anchor === 'middle' ? 0.5 : 1);
    return { text, x: x * SHARPNESS - back, y: y * SHARPNESS, height, colour };
  });
  const over = lettering(drawing.width * SHARPNESS, drawing.height * SHARPNESS, texts);
  return sharp(Buffer.from(toSvg(drawing, false)), { density: 72 * SHARPNESS })
    .composite([{ input: over }])
    .flatten({ background: '#ffffff' })
    .png({ compressionLevel: 9, palette: true })
    .toBuffer();
}

/** Samples of all cases side by side, from the same noise and, where there are some, the same labels. */
import { lettering, type Text } from '../../data/lettering.js';
import { grid } from '../../data/picture.js';
import { written } from '../table.js';
import type { CompareResult } from './outcome.js';
import type { CaseSummary, Measure } from './summary.js';

const MARGIN = 20;
const LABELS = 210;
const HEADING = 36;
const GAP = 10;
/** Pixels that a sample is enlarged to, about. */
const CELL = 56;
const [DARK, LIGHT] = ['#1c2530', '#6b7785'];

/**
 * A block for each guidance scale, in it a row for each case that drew: samples of its first seed.
 * @param measures whose values stand beside the rows
 * @returns a PNG
 */
export async function drawSheet(
  results: readonly CompareResult[],
  summaries: readonly CaseSummary[],
  measures: readonly Measure[],
): Promise<Buffer> {
  const rows = summaries.flatMap((summary) => {
    const result = results.find(({ case: name, drawn }) => name === summary.case && drawn);
    return result?.drawn ? [{ summary, result, drawn: result.drawn }] : [];
  });
  const [first] = rows;
  const guidances = [...new Set(rows.flatMap(({ drawn }) => drawn.sets.map(({ guidance }) => guidance)))];
  const scale = Math.max(1, Math.round(CELL / (first?.drawn.size ?? CELL)));
  const cell = scale * (first?.drawn.size ?? 0);
  const most = Math.max(1, ...rows.map(({ drawn }) => drawn.count));
  const texts: Text[] = [];
  const layers: { input: Buffer; raw: { width: number; height: number; channels: 1 | 3 }; left: number; top: number }[] = [];
  let top = MARGIN;
  for (const guidance of guidances) {
    const measure = measures.find(({ key }) => key.endsWith(`@${guidance}`));
    const heading = guidance === 1 ? 'Without guidance' : `Guidance ${guidance}`;
    texts.push({
      text: `${heading}: a column has the same noise, and where there are classes the same class`,
      x: MARGIN,
      y: top + 16,
      height: 12,
      colour: DARK,
    });
    top += HEADING;
    for (const { summary, result, drawn } of rows) {
      const set = drawn.sets.find((each) => each.guidance === guidance);
      if (!set) continue;
      const { pixels, width, height, channels } = grid(
        Buffer.from(set.pixels, 'base64'),
        drawn.count,
        drawn.size,
        drawn.channels,
        drawn.count,
        {
          ...{ scale, background: 225 }, // else pictures on white would run into each other
        },
      );
      layers.push({ input: Buffer.from(pixels), raw: { width, height, channels }, left: MARGIN + LABELS, top });
      const value = measure?.value(result);
      texts.push({ text: summary.case, x: MARGIN, y: top + cell / 2 - 2, height: 11, colour: DARK });
      if (measure && value !== undefined)
        texts.push({
          text: `${measure.title.split(' ')[0]} ${written({ mean: value })}, seed ${result.seed}`,
          ...{ x: MARGIN, y: top + cell / 2 + 16, height: 8, colour: LIGHT },
        });
      top += height + GAP;
    }
    top += GAP;
  }
  const { default: sharp } = await import('sharp');
  const [width, height] = [MARGIN + LABELS + most * (cell + 2) + MARGIN, top + MARGIN - 2 * GAP];
  return sharp({ create: { width, height, channels: 3, background: '#ffffff' } })
    .composite([...layers, { input: lettering(width, height, texts), left: 0, top: 0 }])
    .removeAlpha()
    .png({ compressionLevel: 9 })
    .toBuffer();
}

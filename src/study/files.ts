/** What a study leaves beside its results: study.json, table.md, and its pictures. Each file whole or as it was. */
import { join } from 'node:path';
import { type Drawing, toPng, toSvg } from '../eval/plot.js';
import { disk } from '../io/disk.js';

/** What of a report is written. */
export interface ReportContent {
  /** Plots by the names of their files without extension: an SVG and a PNG each. */
  readonly drawings: ReadonlyMap<string, Drawing>;
  /** PNG files by name, and what makes them. */
  readonly pictures?: ReadonlyMap<string, () => Promise<Uint8Array>>;
  /** Lines of tables in Markdown with what belongs to them. */
  readonly table: readonly string[];
  /** Of study.json. */
  readonly document: object;
}

export interface Report {
  /** In few numbers, for programs. */
  readonly summaries: readonly object[];
  /** By which rule it is judged, in words. */
  readonly rule: readonly string[];
  readonly table: readonly string[];
  /** Files written, in the study's folder. */
  readonly files: readonly string[];
}

/** How far a study is when it is reported. */
export interface Standing {
  /** Runs of the whole plan, to say what is missing. */
  readonly planned: number;
  /** Another report follows when more is finished: this one does without PNGs, which take longer than all the rest. */
  readonly interim: boolean;
}

/**
 * Writes the report of what is finished so far.
 * @param finished how many runs
 * @returns the table as it was written, and the names of the files
 */
export async function writeFiles(
  out: string,
  { drawings, pictures, table, document }: ReportContent,
  finished: number,
  { planned, interim }: Standing,
): Promise<Pick<Report, 'table' | 'files'>> {
  const files: string[] = [];
  const write = (name: string, content: string | Uint8Array): void => {
    disk.writeFileAtomic(join(out, name), content);
    files.push(name);
  };
  for (const [name, drawing] of drawings) {
    write(`${name}.svg`, toSvg(drawing));
    if (!interim) write(`${name}.png`, await toPng(drawing));
  }
  if (!interim) for (const [name, make] of pictures ?? []) write(name, await make());
  const lines =
    planned > finished ? [...table, '', `Not finished: ${planned - finished} of ${planned} runs are still to be computed.`] : table;
  write('table.md', `${lines.join('\n')}\n`);
  write('study.json', `${JSON.stringify(document, null, 1)}\n`);
  return { table: lines, files };
}

/** How the runs of a study were judged, in words. ARCHITECTURE.md, The method: evaluation. */
import type { CompareResult, DrawingReport } from './outcome.js';

/** Lines of all runs; one that not all share names the cases that it is of. @param results of one set of pictures, at least one */
export function protocolLines(results: readonly CompareResult[]): string[] {
  const said = new Map<string, Set<string>>();
  for (const result of results) for (const line of linesOf(result)) said.set(line, (said.get(line) ?? new Set()).add(result.case));
  const all = new Set(results.flatMap(({ case: name, drawing, encoding }) => (drawing || encoding ? [name] : [])));
  const shared = (cases: ReadonlySet<string>): number => (cases.size < all.size ? 1 : 0);
  const inOrder = [...said].sort(([, a], [, b]) => shared(a) - shared(b));
  return inOrder.map(([line, cases]) => `- ${cases.size < all.size ? `${[...cases].join(', ')}: ` : ''}${line}`);
}

function linesOf({ drawing, encoding, machine }: CompareResult): string[] {
  const on = `on ${machine.device === 'cpu' ? `${machine.processor}, ${machine.threads} ${machine.threads === 1 ? 'thread' : 'threads'}` : machine.device}, libtorch ${machine.libtorch}`;
  const probes = (drawing ?? encoding)?.probes?.protocol;
  const probed = probes
    ? [
        `encoder: its last tokens averaged over places, ${probes.nearest.k} nearest (cosine) and a linear probe of ${number(probes.train.count)} pictures of ${probes.train.source}, asked about ${number(probes.heldOut.count)} of ${probes.heldOut.source}; the floor is the most frequent class`,
      ]
    : [];
  if (encoding) {
    const { weights, precision, latent } = encoding.protocol;
    return [
      `${weightsOf(weights)}, ${precision} ${on}`,
      `no decoder: latents of ${number(latent.count)} pictures of ${latent.source}; most rank ${encoding.mostRank}`,
      ...probed,
    ];
  }
  return drawing ? [...drawingLines(drawing, on), ...probed] : [];
}

function drawingLines({ protocol, samples, reconstruction, warnings }: DrawingReport, on: string): string[] {
  const { weights, precision, labels, noise, seed, judges, pictures } = protocol;
  return [
    `${weightsOf(weights)}, ${precision} ${on}`,
    ...samples.map(({ sampler: { solver, steps, guidance, interval, shift, target } }) => {
      const by = guidance === 1 ? 'no guidance' : `guidance ${guidance} on [${interval.join(', ')}]`;
      return `samples: ${solver}, ${steps} steps, ${by}, shift ${shift}; the network predicts the ${target === 'velocity' ? target : 'clean latent'}${target === 'preconditioned' ? ', preconditioned' : ''}`;
    }),
    `labels ${labels}`,
    `${number(protocol.samples)} samples a set, noise: ${noise}, seed ${seed}; ${pictures}`,
    ...judges.map(
      ({ distance, dimension, source, reference, floor }) =>
        `${distance}: ${number(dimension)} features, ${source}; against ${number(reference.count ?? Number.NaN)} pictures of ${reference.source}${floor ? `; floor: ${number(floor.count)} of ${floor.source}` : ''}`,
    ),
    `PSNR pooled over ${number(protocol.reconstruction.count)} pictures of ${protocol.reconstruction.source}; per-patch PCA of equal width: ${reconstruction.pcaPsnr.toFixed(2)} dB; most rank ${reconstruction.mostRank}`,
    ...warnings.map((warning) => `warning: ${warning}`),
  ];
}

const weightsOf = (kind: string): string => (kind === 'average' ? 'averaged weights' : `${kind} weights`);
const number = (count: number): string => count.toLocaleString('en-GB');

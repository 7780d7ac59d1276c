/**
 * Finds libtorch and builds the addons (native/ -> build/dsd_native.node, native/pictures/ -> build/dsd_pictures.node). Node's built-in modules
 * only, no CMake: a compiler, libtorch's headers and Node's headers are all it needs. A second run with nothing changed takes milliseconds.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const run = promisify(execFile);

/**
 * @typedef {object} Libtorch
 * @property {string} version of its headers, such as '1.13.0'
 * @property {string} source where it was found, for people
 * @property {string[]} includes folders
 * @property {string} libraries folder
 * @property {boolean} cuda whether it was built with CUDA
 */

/** A libtorch or a compiler that will not do. The message says what to do. */
export class BuildError extends Error {}

/** Whether libtorch of this version is one that the addon is written for: 1.13, or 2.6 and newer. */
export function isSupported(version) {
  const [major, minor] = version.split('.').map(Number);
  return (major === 1 && minor === 13) || (major === 2 && minor >= 6) || major > 2;
}

/**
 * The first libtorch of: the folder LIBTORCH; the `torch` of the active Python (or of PYTHON); the system's package. Undefined if there is none.
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {Libtorch | undefined}
 * @throws {BuildError} when one is found that cannot be used
 */
export function findLibtorch(env = process.env) {
  if (env.LIBTORCH) {
    const found = at(env.LIBTORCH, 'LIBTORCH');
    if (!found)
      throw new BuildError(`LIBTORCH is ${env.LIBTORCH}, but there is no libtorch in it: it must hold include/torch and lib/libtorch.so`);
    return found;
  }
  return ofPython(env) ?? ofSystem();
}

/** A libtorch or PyTorch folder with include/ and lib/; or /usr, for the distribution's where Python's would come first. */
function at(folder, source) {
  // The addon remembers where its libraries are: a relative path would be looked for in the folder of the day.
  const whole = resolve(folder);
  for (const libraries of [join(whole, 'lib'), ...multiarch(join(whole, 'lib'))]) {
    const found = describe(join(whole, 'include'), libraries, `${source} (${whole})`);
    if (found) return found;
  }
  return undefined;
}

/** Debian's folders of libraries by kind of machine. */
function multiarch(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('-linux-gnu'))
    .map((name) => join(folder, name));
}

/** Starting Python costs 30 ms, and importing torch seconds: only ask where the package would be. */
function ofPython(env) {
  // Python looks in the current folder first, where a folder that happens to be called torch would do.
  const ask =
    "import sys; sys.path = [p for p in sys.path if p]; import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')";
  for (const python of env.PYTHON ? [env.PYTHON] : ['python3', 'python']) {
    if (!env.PYTHON && !(env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, python)))) continue;
    try {
      const folder = execFileSync(python, ['-c', ask], {
        encoding: 'utf8',
        env,
        stdio: ['ignore', 'pipe', 'ignore'],
        timeout: 30_000,
      }).trim();
      // Debian's python3-torch has neither headers nor libraries of its own: those are the system's.
      if (folder && existsSync(join(folder, 'include', 'torch'))) return at(folder, "Python's torch");
    } catch {
      // no such Python, or a broken one
    }
    break;
  }
  return undefined;
}

function ofSystem() {
  for (const include of ['/usr/include', '/usr/local/include']) {
    for (const libraries of [...multiarch('/usr/lib'), '/usr/lib64', '/usr/lib', '/usr/local/lib']) {
      const found = describe(include, libraries, 'the system');
      if (found) return found;
    }
  }
  return undefined;
}

function describe(include, libraries, source) {
  const api = join(include, 'torch/csrc/api/include');
  const header = join(api, 'torch/version.h');
  if (!existsSync(header) || !existsSync(join(libraries, 'libtorch_cpu.so'))) return undefined;
  const text =
    readFileSync(header, 'utf8') +
    (existsSync(join(include, 'torch/headeronly/version.h')) ? readFileSync(join(include, 'torch/headeronly/version.h'), 'utf8') : '');
  const part = (name) => new RegExp(`#define TORCH_VERSION_${name} (\\d+)`).exec(text)?.[1];
  const version = [part('MAJOR'), part('MINOR'), part('PATCH')].join('.');
  if (!isSupported(version))
    throw new BuildError(
      `libtorch ${version} of ${source} cannot be used: dsd needs 1.13, or 2.6 or newer; set LIBTORCH to the folder of another, or to /usr for the distribution's`,
    );
  if (isPreCxx11(libraries))
    throw new BuildError(`libtorch ${version} of ${source} was built with the old C++ ABI (pre-cxx11): take the cxx11-abi build`);
  return { version, source, includes: [include, api], libraries, cuda: existsSync(join(libraries, 'libtorch_cuda.so')) };
}

/** The old ABI's names have std::string as `Ss`, the new one's as `__cxx11`: a symbol that every libc10 exports tells. */
function isPreCxx11(libraries) {
  const bytes = readFileSync(join(libraries, 'libc10.so')).toString('latin1');
  return bytes.includes('_ZN3c105ErrorC1ENS_14SourceLocationESs') && !bytes.includes('_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx11');
}

/** Node's own headers: NODE_HEADERS, beside the running Node, or the system's. */
function nodeHeaders(env) {
  const candidates = [
    env.NODE_HEADERS,
    join(dirname(realpathSync(process.execPath)), '../include/node'),
    '/usr/include/node',
    '/usr/local/include/node',
  ];
  const found = candidates.find((folder) => folder && existsSync(join(folder, 'node_api.h')));
  if (!found)
    throw new BuildError(
      `Node's headers (node_api.h) were not found beside ${process.execPath}: set NODE_HEADERS to their folder, or install libnode-dev`,
    );
  return found;
}

/**
 * Folders that hold CUDA's headers: a toolkit's, or what PyTorch's wheels bring along (nvidia/<something>/include beside torch/, and Triton's,
 * which has the crt/ that the former lack).
 */
function cudaHeaders(libtorch, env) {
  const packages = join(libtorch.libraries, '../..');
  const ofWheels = existsSync(join(packages, 'nvidia'))
    ? readdirSync(join(packages, 'nvidia')).map((name) => join(packages, 'nvidia', name, 'include'))
    : [];
  const candidates = [
    env.CUDA_HOME && join(env.CUDA_HOME, 'include'),
    ...ofWheels,
    join(packages, 'triton/backends/nvidia/include'),
    '/usr/local/cuda/include',
    '/usr/include',
  ];
  const folders = candidates.filter((folder) => folder !== undefined && existsSync(folder));
  const runtime = (folder) => existsSync(join(folder, 'cuda_runtime_api.h'));
  const crt = (folder) => existsSync(join(folder, 'crt/host_config.h'));
  const both = folders.find((folder) => runtime(folder) && crt(folder));
  const parts = both ? [both] : [folders.find(runtime), folders.find(crt)];
  if (parts.includes(undefined))
    throw new BuildError(
      `${libtorch.source} has CUDA, but CUDA's headers (cuda_runtime_api.h, crt/host_config.h) were not found: set CUDA_HOME, or install the Python packages nvidia-cuda-runtime and nvidia-cuda-crt beside torch`,
    );
  return parts.filter((folder) => folder !== '/usr/include');
}

async function sources(...folders) {
  const files = [];
  for (const folder of folders) {
    for (const name of (await readdir(join(root, folder))).sort()) if (/\.(cc|cu|h)$/.test(name)) files.push(join(folder, name));
  }
  return files;
}

/** What each addon is made of, and how. */
async function describeAddons(libtorch, first, env) {
  const build = (name) => join(root, 'build', name);
  const standard = [
    ...first,
    `-std=c++${Number(libtorch.version.split('.')[0]) >= 2 ? 20 : 17}`,
    ...['-fPIC', '-fvisibility=hidden', '-fopenmp', '-fno-math-errno', '-fno-trapping-math', '-DNDEBUG', '-w'],
  ];
  const node = `-I${nodeHeaders(env)}`;
  const cuda = () => [
    '-DDSD_CUDA',
    `-DDSD_CUDA_SOURCES="${join(root, 'native/kernels/cuda')}"`,
    ...cudaHeaders(libtorch, env).flatMap((folder) => ['-isystem', folder]),
  ];
  const includes = libtorch.includes.flatMap((folder) => (folder === '/usr/include' ? [] : ['-isystem', folder]));
  return [
    {
      path: build('dsd_native.node'),
      files: await sources('native', 'native/kernels', 'native/kernels/cuda'),
      flags: [...standard, ...includes, node, ...(libtorch.cuda ? cuda() : [])],
      link: [...first, ...linkFlags(libtorch)],
      libraries: libraryFlags(libtorch),
    },
    {
      path: build('dsd_pictures.node'),
      files: [...(await sources('native/pictures')), 'native/vector-widths.h'],
      // Weights are Pillow's to the bit on every processor: a product and a sum are two roundings.
      flags: [...standard, node, '-ffp-contract=off'],
      link: [...first, '-shared'],
      libraries: [],
    },
  ];
}

/**
 * Builds the addons if one is not there or anything they are made of has changed.
 * @param {{ libtorch?: Libtorch, log?: (line: string) => void, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ built: boolean, path: string }>}
 * @throws {BuildError} with the compiler's last lines
 */
export async function buildNative({ libtorch, log = () => {}, env = process.env } = {}) {
  libtorch ??= findLibtorch(env);
  if (!libtorch)
    throw new BuildError('libtorch was not found: set LIBTORCH to its folder, activate a Python that has torch, or install libtorch-dev');
  // As make takes it: a program and its first arguments (`ccache g++`), or else a path with spaces in it.
  const [compiler, ...first] = existsSync(env.CXX ?? '') ? [env.CXX] : (env.CXX?.trim() || 'g++').split(/\s+/);
  const addons = await describeAddons(libtorch, first, env);
  const path = addons[0].path;
  const stampPath = join(root, 'build', 'dsd_native.stamp');
  const library = realpathSync(join(libtorch.libraries, 'libtorch_cpu.so'));
  const hash = createHash('sha256').update(JSON.stringify([libtorch, library, compiler, addons, process.arch]));
  hash.update(await readFile(fileURLToPath(import.meta.url)));
  for (const file of addons.flatMap(({ files }) => files)) hash.update(file).update(await readFile(join(root, file)));
  const stamp = hash.digest('hex');
  const previous = await readFile(stampPath, 'utf8').catch(() => '');
  if (previous === stamp && addons.every(({ path }) => existsSync(path))) return { built: false, path };

  const started = performance.now();
  const { stdout: version } = await run(compiler, ['--version']).catch(() => {
    throw new BuildError(`the C++ compiler '${compiler}' was not found: install g++ (Debian, Ubuntu: apt-get install g++), or set CXX`);
  });
  log(`building the engine for libtorch ${libtorch.version}${libtorch.cuda ? ' with CUDA' : ''} of ${libtorch.source}`);
  const objects = join(root, 'build', 'objects');
  await mkdir(objects, { recursive: true });
  const compiled = await compileAll({ addons, compiler, objects, log, against: [libtorch, library, await signature(library), version] });
  await rm(stampPath, { force: true });
  for (const [i, addon] of addons.entries()) await link(compiler, addon, compiled[i]);
  await writeFile(stampPath, stamp);
  await removeStale(objects, compiled.flat());
  log(`built ${addons.map(({ path }) => relative(root, path)).join(' and ')} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return { built: true, path };
}

/** A name of this process alone until it is whole: two builds at once do twice the work, and both addons are whole. */
async function link(compiler, addon, objects) {
  const made = `${addon.path}.${process.pid}.new`;
  try {
    await compile(compiler, [...addon.link, ...objects, ...addon.libraries, '-o', made], 'the addon (linking)');
    await rename(made, addon.path);
  } finally {
    await rm(made, { force: true });
  }
}

/** As many at a time as there are cores; the objects' files by addon. What has been compiled from the same before is taken. */
async function compileAll({ addons, compiler, objects, log, against }) {
  const jobs = [];
  const compiled = [];
  for (const { files, flags } of addons) {
    const texts = new Map(await Promise.all(files.map(async (file) => [file, await readFile(join(root, file), 'utf8')])));
    const sources = files.filter((file) => file.endsWith('.cc'));
    const targets = sources.map((file) => {
      // Every header counts for every source; the kernels' texts only where they are embedded.
      const embeds = texts.get(file).includes('DSD_CUDA_SOURCES');
      const parts = files.filter((other) => other === file || other.endsWith('.h') || (embeds && other.endsWith('.cu')));
      // libtorch may be another one under the same path, and its headers are not looked at.
      const hash = createHash('sha256').update(JSON.stringify([compiler, flags, process.arch, against]));
      for (const part of parts) hash.update(part).update(texts.get(part));
      return join(objects, `${relative('native', file).replaceAll('/', '_')}-${hash.digest('hex').slice(0, 24)}.o`);
    });
    jobs.push(...sources.map((source, i) => ({ source, target: targets[i], flags })));
    compiled.push(targets);
  }
  let next = 0;
  const worker = async () => {
    while (next < jobs.length) {
      const { source, target, flags } = jobs[next++];
      if (existsSync(target)) continue;
      const begun = performance.now();
      const level = /kernels|pictures/.test(source) ? '-O3' : '-O2';
      const part = `${target}.${process.pid}.new`;
      try {
        await compile(compiler, [...flags, level, '-c', join(root, source), '-o', part], source);
        await rename(part, target);
      } catch (error) {
        next = jobs.length;
        await rm(part, { force: true });
        throw error;
      }
      log(`  compiled ${source} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs.length, availableParallelism()) }, worker));
  return compiled;
}

/** By which another library under the same name is known. */
async function signature(file) {
  const { size, mtimeMs } = await stat(file);
  return [size, mtimeMs];
}

/** Objects of other sources or flags; those of the last hour may be another build's that is still at work. */
async function removeStale(objects, used) {
  for (const name of await readdir(objects)) {
    const file = join(objects, name);
    const { mtimeMs } = await stat(file).catch(() => ({ mtimeMs: Date.now() }));
    if (!used.includes(file) && mtimeMs < Date.now() - 3_600_000) await rm(file, { force: true });
  }
}

// Not linked with -fopenmp: PyTorch's wheels bring an OpenMP of their own, and two in one process fight for the cores.
// nodelete: a worker that ends must not unload code that libtorch's dispatcher points to.
// -Xlinker, since -Wl would cut a folder's name at its commas.
const linkFlags = ({ libraries }) => [
  ...['-shared', `-L${libraries}`, '-Xlinker', '-rpath', '-Xlinker', libraries],
  ...['-Wl,-z,nodelete', '-Wl,--no-as-needed'],
];
const libraryFlags = ({ cuda }) => ['-ltorch_cpu', '-ltorch', '-lc10', ...(cuda ? ['-ltorch_cuda', '-lc10_cuda'] : []), '-ldl'];

function compile(compiler, args, what) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      errors = (errors + text).slice(-16_000);
    });
    child.on('error', (cause) => reject(new BuildError(`'${compiler}' could not be started: ${cause.message}`)));
    child.on('close', (code) => {
      if (code === 0) return resolve(undefined);
      const lines = errors.trimEnd().split('\n');
      const first = lines.filter((line) => /error/.test(line)).slice(0, 3);
      reject(
        new BuildError(
          `compiling ${what} failed:\n${[...new Set([...first, ...lines.slice(-12)])].join('\n')}\nIs libtorch complete (headers of the same version as its libraries), and is the compiler g++ 11 or newer?`,
        ),
      );
    });
  });
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  buildNative({ log: (line) => process.stderr.write(`${line}\n`) }).catch((error) => {
    process.stderr.write(`${error instanceof BuildError ? error.message : error.stack}\n`);
    process.exitCode = 1;
  });
}

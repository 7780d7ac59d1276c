/**
 * System packages for the set-up: what is missing on this Debian or Ubuntu, and its installation with progress in brief where we may.
 * Node built-ins only: this runs before anything is installed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, realpathSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Something the user has to do; the message says what. */
export class SetupError extends Error {}

/** Full path of a program, or undefined. A look at PATH instead of a trial run: repeated set-ups take milliseconds. */
export function findProgram(name) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (folder !== '' && statSync(path).isFile()) return path;
    } catch {
      // not in this folder
    }
  }
  return undefined;
}

/**
 * The BLAS that Debian's libtorch will load, or undefined where Debian's alternatives are not used.
 * @returns {{path: string, good: boolean, openmp: string} | undefined} `good` unless it is known to be slow under libtorch; `openmp` the
 *   folder of OpenBLAS's OpenMP build, whether or not it is there
 */
export function activeBlas() {
  const triplet = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }[process.arch];
  const link = `/usr/lib/${triplet}/libblas.so.3`;
  if (triplet === undefined || !existsSync(link)) return undefined;
  const path = realpathSync(link);
  // The reference BLAS reaches a fifteenth of OpenBLAS; builds with threads of their own fight libtorch's OpenMP threads for the processors.
  const slow = /\/(blas|atlas|openblas-pthread|openblas-serial|blis-pthread|blis-serial)\//.test(path);
  return { path, good: !slow, openmp: `/usr/lib/${triplet}/openblas-openmp` };
}

/** Makes OpenBLAS's OpenMP build the system's BLAS and LAPACK. Returns the commands that did it, or would, if we may not. */
export async function chooseOpenmpBlas(blas, log) {
  const triplet = blas.openmp.split('/')[3];
  const commands = ['libblas.so.3', 'liblapack.so.3', 'libopenblas.so.0'].map((library) => [
    'update-alternatives',
    '--set',
    `${library}-${triplet}`,
    `${blas.openmp}/${library}`,
  ]);
  const prefix = rootPrefix();
  const text = commands.map((command) => ['sudo', ...command].join(' ')).join('\n  ');
  if (prefix === undefined) return { done: false, text };
  for (const command of commands) {
    const [program, ...args] = [...prefix, ...command];
    log(`running ${[program, ...args].join(' ')}`);
    if (spawnSync(program, args, { stdio: 'ignore' }).status !== 0) return { done: false, text };
  }
  return { done: true, text };
}

/**
 * Installs packages by apt-get, as root or by a sudo that asks no password.
 * @param {readonly string[]} packages
 * @param {(line: string) => void} log a line for each phase
 * @throws SetupError with the command to run where we may not or it fails
 */
export async function installPackages(packages, log) {
  const command = `apt-get install -y --no-install-recommends ${packages.join(' ')}`;
  if (!findProgram('apt-get'))
    throw new SetupError(
      `this machine lacks ${packages.join(', ')} and has no apt-get (this set-up installs on Debian and Ubuntu only).\n` +
        'Install a C++ compiler and PyTorch (for one, `pip install torch` in an active virtual environment), or set LIBTORCH to the folder of a libtorch.',
    );
  const prefix = rootPrefix();
  if (prefix === undefined)
    throw new SetupError(
      `this machine lacks ${packages.join(', ')}, and installing needs rights that you do not have without a password. Run\n` +
        `  sudo apt-get update && sudo ${command}\nand then this command again.`,
    );

  // On a fresh machine or container the package lists are empty.
  let updated = false;
  let unreachable;
  const update = async () => {
    log('apt-get update: fetching the package lists');
    updated = true;
    unreachable = /^W: (Failed to fetch.*)/m.exec(await apt(prefix, ['update'], log))?.[1];
  };
  if (packages.some((name) => candidate(name) === undefined)) await update();
  for (const name of packages) {
    const version = candidate(name);
    // To apt-get a mirror that it cannot reach is no error.
    if (version === undefined && unreachable)
      throw new SetupError(`apt could not fetch its package lists, and has none with ${name}. Check the network.\n  ${unreachable}`);
    if (version === undefined)
      throw new SetupError(
        `apt knows no package ${name}. Enable Debian's main or Ubuntu's universe in its sources, then run this command again.`,
      );
    if (name === 'libtorch-dev' && !supported(version))
      throw new SetupError(
        `the package libtorch-dev has version ${version} here; supported are 1.13.1 and 2.6 or newer. Make one available by\n` +
          '  python3 -m venv .venv && . .venv/bin/activate && pip install torch\nand then run this command again in that environment.',
      );
  }
  log(`${[...prefix, command].join(' ')}`);
  const install = ['install', '-y', '--no-install-recommends', ...packages];
  try {
    await apt(prefix, install, log);
  } catch (error) {
    // Old lists name versions that the mirror no longer has.
    if (updated || !/404|unable to fetch|failed to fetch/i.test(error.message)) throw error;
    await update();
    await apt(prefix, install, log);
  }
}

function supported(version) {
  const [major, minor, patch] = version
    .replace(/^\d+:/, '')
    .split(/[.+~-]/)
    .map(Number);
  return (major === 1 && minor === 13 && patch === 1) || (major === 2 && minor >= 6) || major > 2;
}

/** The version apt would install, undefined if it knows none. */
function candidate(name) {
  const { stdout } = spawnSync('apt-cache', ['policy', name], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  const version = /Candidate: (\S+)/.exec(stdout ?? '')?.[1];
  return version === '(none)' ? undefined : version;
}

/** What a command is to start with to run as root, undefined if we may not. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  if (findProgram('sudo') && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0) return ['sudo', '-n'];
  return undefined;
}

/** Runs apt-get and returns its last lines, telling what it downloads and each quarter of the download and of the installation, instead of its hundreds of lines. */
async function apt(prefix, args, log) {
  // Variables by `env`, because sudo drops them; a wait for the lock, because a fresh machine often runs its own upgrades first. The status
  // lines need a descriptor of their own, since apt closes it for the packages' scripts, and one made inside sudo, which closes those above 2.
  const variables = ['env', 'DEBIAN_FRONTEND=noninteractive', 'LC_ALL=C'];
  const options = ['-o', 'DPkg::Lock::Timeout=300', '-o', 'Dpkg::Use-Pty=0', '-o', 'APT::Status-Fd=3'];
  const [program, ...rest] = [...prefix, ...variables, 'sh', '-c', 'exec "$0" "$@" 3>&1', 'apt-get', ...options, ...args];
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  const last = [];
  let quarter = '';
  const line = (text) => {
    const status = /^(dl|pm)status:[^:]*:([\d.]+):/.exec(text);
    if (status) {
      const now = `${status[1] === 'dl' ? 'downloaded' : 'installed'} ${Math.floor(Number(status[2]) / 25) * 25} %`;
      if (now !== quarter && !now.endsWith(' 0 %')) log(now);
      quarter = now;
      return;
    }
    if (/^(Need to get|After this operation|Waiting for cache lock)/.test(text)) log(text);
    if (text.trim() !== '') last.push(text);
    if (last.length > 400) last.shift();
  };
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      lines.forEach(line);
    });
    stream.on('end', () => line(rest));
  }
  // Ctrl-C reaches apt too, which ends cleanly by itself; leaving before it would hide what it says.
  const wait = () => {};
  process.on('SIGINT', wait);
  const status = await new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('close', resolve);
  });
  process.off('SIGINT', wait);
  if (status === 0) return last.join('\n');
  // dpkg says what failed long before apt's own last line.
  const errors = last.filter((text) => /^E: |\berror\b|\bfailed\b/i.test(text));
  throw new SetupError(
    `apt-get ${args[0]} failed (${status ?? 'interrupted'}):\n  ${[...new Set([...errors.slice(0, 8), ...last.slice(-4)])].join('\n  ')}\n` +
      `Put that right, or run it yourself, then this command again:\n  sudo apt-get ${args.join(' ')}`,
  );
}

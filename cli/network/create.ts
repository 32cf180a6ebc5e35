/** `cni network create`: makes a validated configuration from a few options. */

import { linkSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { isValidName } from '../../lib/cni/invocation.ts';
import { acquireDirectoryLock } from '../../lib/kernel/lock.ts';
import type { Suite } from '../../main.ts';
import { CommandError, ExitCode } from '../errors.ts';
import { isLoopback, networkFiles, readNetworkFile } from '../libcni/conflist.ts';
import { wholeNumber } from '../numbers.ts';
import { configDir, pluginPath } from '../settings.ts';
import type { Subcommand } from '../subcommand.ts';
import { note, print, warn } from '../terminal.ts';
import { type CheckedFile, checkFile } from '../validate/file.ts';
import { checkNetworks } from '../validate/networks.ts';
import { composeNetwork, drivers, type NetworkOptions } from './compose.ts';
import { readHostUse } from './free-subnet.ts';

/** How long to wait for others who create networks at the same time, in milliseconds. */
const patienceMs = 60_000;

interface CreateArguments extends NetworkOptions {
  dryRun?: boolean;
  host: boolean;
}

/** The subcommand. @param suite whose schemas the configuration is checked against. */
export function create(suite: Suite): Subcommand<CreateArguments> {
  return {
    builder: (yargs) =>
      yargs
        .positional('name', { type: 'string', demandOption: true, describe: 'Name of the network' })
        .option('driver', {
          alias: 'd',
          choices: drivers,
          default: 'bridge' as const,
          describe: 'The plugin that makes the interface of a container',
        })
        .option('subnet', {
          type: 'string',
          array: true,
          nargs: 1,
          default: [] as string[],
          defaultDescription: 'a free /24; none for macvlan and ipvlan, which then use DHCP',
          describe: 'Where addresses come from; one of IPv4 and one of IPv6 for both',
        })
        .option('gateway', {
          type: 'string',
          array: true,
          nargs: 1,
          default: [] as string[],
          defaultDescription: 'the first address of each subnet',
          describe: 'Address that leads to other networks, in one of the subnets',
        })
        .option('ip-range', {
          type: 'string',
          array: true,
          nargs: 1,
          default: [] as string[],
          describe: 'Part of a subnet to give away, as 10.1.0.128/25 or 10.1.0.10-10.1.0.99',
        })
        .option('ipv6', { type: 'boolean', default: false, describe: 'IPv6 addresses as well' })
        .option('parent', {
          alias: 'p',
          type: 'string',
          describe: 'Interface of the host, for macvlan and ipvlan',
        })
        .option('bridge', {
          type: 'string',
          describe: 'Name of the bridge; the next free of cni0, cni1, … without',
        })
        // 68 is the smallest MTU for IPv4. Source: RFC 791, section 3.2.
        .option('mtu', { ...wholeNumber('mtu', [68, 65535]), describe: 'Largest packet, in bytes' })
        .option('vlan', { ...wholeNumber('vlan', [1, 4094]), describe: 'VLAN on the bridge' })
        .option('internal', { type: 'boolean', default: false, describe: 'No way to other networks' })
        .option('ports', {
          type: 'boolean',
          defaultDescription: 'true; macvlan, ipvlan and --internal have none',
          describe: 'Publish ports of the host',
        })
        .option('firewall', {
          type: 'boolean',
          defaultDescription: 'true; macvlan and ipvlan pass it by',
          describe: "Let traffic through the host's firewall",
        })
        .option('isolate', { type: 'boolean', default: false, describe: 'Keep other isolated bridges out' })
        .option('host', {
          type: 'boolean',
          default: true,
          describe: 'Check against this host; --no-host does not',
        })
        .option('dry-run', {
          type: 'boolean',
          default: false,
          describe: 'Print the configuration, and create nothing',
        })
        .example('$0 network create backend', 'A bridge with a free subnet')
        .example('$0 network create web --subnet 10.5.0.0/24 --subnet fd05::/64', 'IPv4 and IPv6')
        .example('$0 network create lan -d macvlan -p eth0', 'Addresses of the LAN, by DHCP'),
    handler: async ({ dryRun, host, ...options }) => {
      const { name } = options;
      if (!isValidName(name))
        throw new CommandError(
          `"${name}" must begin with a letter or digit and go on with letters, digits, "_", "." or "-"`,
          { exitCode: ExitCode.Usage },
        );
      // What is free now stays free until the file is written, whatever else is created at the same time.
      using _ = dryRun ? undefined : await lockDirectory();
      const config = composeNetwork(options, await readHostUse(suite));
      const text = `${JSON.stringify(config, null, 2)}\n`;
      const file = join(configDir(), fileName(name));
      await refuseInvalid({ name, file, text }, suite, host);
      if (dryRun) return print(text.trimEnd());
      write(file, text);
      note(`Network "${name}" is in "${file}".`);
      print(name);
    },
  };
}

/** Waits until nobody else creates a network. The lock ends with the process at the latest. */
async function lockDirectory(): Promise<Disposable> {
  const directory = configDir();
  try {
    mkdirSync(directory, { recursive: true });
    return await acquireDirectoryLock(directory, patienceMs);
  } catch (cause) {
    throw new CommandError(`No network can be created in "${directory}"`, { cause });
  }
}

/** Validates the configuration together with the existing ones. @throws CommandError */
async function refuseInvalid(
  { name, file, text }: { name: string; file: string; text: string },
  suite: Suite,
  host: boolean,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'cni-network-'));
  try {
    const draft = join(directory, basename(file));
    writeFileSync(draft, text);
    const others: CheckedFile[] = [];
    for (const other of existingFiles())
      others.push(
        await checkFile(other, { suite, isInstalled: undefined, hostPath: undefined, looksAtUse: false }),
      );
    const taken = others.find(({ network }) => network?.name === name);
    if (taken)
      throw new CommandError(`Network "${name}" exists already, in "${taken.file}". Choose another name`);
    const own = await checkFile(draft, {
      suite,
      isInstalled: undefined,
      hostPath: host ? pluginPath() : undefined,
      looksAtUse: host,
    });
    checkNetworks([...others, own]);
    const errors = own.findings.filter(({ severity }) => severity === 'error');
    if (errors.length > 0)
      throw new CommandError(
        [`Network "${name}" is not created`, ...errors.map(({ message }) => message)].join('\n  '),
      );
    for (const { message } of own.findings) warn(message);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/**
 * A name that sorts after the networks that exist: runtimes that use a single network take the first. Before
 * one that gives pods nothing but "lo", for the same reason.
 */
function fileName(name: string): string {
  const others = existingFiles()
    .filter((file) => !isOfLoopback(file))
    .map((file) => basename(file));
  const names = ['90', '99', 'zz'].map((prefix) => `${prefix}-${name}.conflist`);
  return names.find((one) => others.every((other) => other < one)) ?? names.at(-1)!;
}

function isOfLoopback(file: string): boolean {
  try {
    return isLoopback(readNetworkFile(file));
  } catch {
    return false; // "cni validate" says what is wrong with it.
  }
}

/** Files of the networks that exist. */
function existingFiles(): string[] {
  return statSync(configDir(), { throwIfNoEntry: false }) ? networkFiles(configDir()) : [];
}

/** Writes the file as a whole, and never over another one. */
function write(file: string, text: string): void {
  // Runtimes read no file with such a name.
  const temporary = join(configDir(), `.${basename(file)}.${process.pid}.tmp`);
  try {
    writeFileSync(temporary, text, { flag: 'wx', mode: 0o644, flush: true });
    linkSync(temporary, file);
  } catch (cause) {
    throw new CommandError(`Cannot create "${file}"`, { cause });
  } finally {
    rmSync(temporary, { force: true });
  }
}

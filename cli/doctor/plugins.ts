/** Whether the plugins that the networks name are installed, support their versions, and are of one build. */

import { join } from 'node:path';
import { namesIn } from '../../lib/directory.ts';
import { readRegularFile, statusAt } from '../../lib/file.ts';
import type { Suite } from '../../main.ts';
import { identify } from '../install/identity.ts';
import { ipamTypeOf, type NetworkList } from '../libcni/conflist.ts';
import { versionsOf } from '../plugin-versions.ts';
import { count } from '../terminal.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import type { Context } from './context.ts';

export const plugins: Check = {
  id: 'plugins',
  title: 'Plugins',
  run(context) {
    const needed = neededPlugins(context.inventory.networks);
    const { path } = context.environment;
    const findings = [
      ...[...needed].flatMap(([name, networks]) => usable(name, networks, context)),
      ...mixedBuilds(path, [...needed.keys()]),
      ...drift(path, [...needed.keys()]),
    ];
    return { findings, seen: `${count(needed.size, 'plugin')} of the networks in ${path.join(' and ')}` };
  },
};

/** Names of plugins, and the networks that name them. */
function neededPlugins(networks: readonly NetworkList[]): Map<string, NetworkList[]> {
  const needed = new Map<string, NetworkList[]>();
  for (const network of networks)
    for (const { type, config } of network.plugins)
      for (const name of [type, ipamTypeOf(config)])
        if (name !== undefined && !name.includes('/'))
          needed.set(name, [...(needed.get(name) ?? []), network]);
  return needed;
}

/** Whether a plugin is installed, and supports the versions of its networks. */
function usable(name: string, networks: readonly NetworkList[], { environment, suite }: Context): Finding[] {
  const { path } = environment;
  const [directory] = path.filter((one) => isFile(join(one, name)));
  const isOurs = (suite: Suite) => suite.plugins.has(name) || suite.ipam.has(name);
  const install = isOurs(suite) ? installInto(directory ?? path[0] ?? '/opt/cni/bin') : 'Install it there';
  const of = `network ${[...new Set(networks.map((one) => `"${one.name}"`))].join(', ')}`;
  if (!directory)
    return [
      {
        severity: 'error',
        subject: name,
        message: `Plugin "${name}" of ${of} is not in ${path.map((one) => `"${one}"`).join(' or ')}, so that no ADD succeeds`,
        cause:
          'It was never installed there, or was removed; another program may have replaced the directory',
        fix: install,
      },
    ];
  const file = join(directory, name);
  const versions = versionsOf(file);
  if (typeof versions === 'string')
    return [
      {
        severity: 'error',
        subject: file,
        message: `It does not answer VERSION, so that no ADD of ${of} succeeds: ${versions}`,
        cause: 'The file is damaged, is of another architecture, or is not a CNI plugin',
        fix: install,
      },
    ];
  return networks
    .filter(({ cniVersion }) => !versions.includes(cniVersion || '0.1.0'))
    .map((network) => ({
      severity: 'error',
      subject: file,
      message: `It does not take cniVersion "${network.cniVersion}" of network "${network.name}", but ${versions.join(', ')}`,
      cause: 'The plugin is older than the configuration',
      fix: isOurs(suite) ? install : `Set "cniVersion" to "${versions.at(-1)}", or install a newer plugin`,
    }));
}

/** Plugins of this suite in one directory that are not of one build. */
function mixedBuilds(path: readonly string[], names: readonly string[]): Finding[] {
  return path.flatMap((directory) => {
    const builds = Map.groupBy(
      names.flatMap((name) => {
        const identity = identify(join(directory, name), name);
        return identity?.isOurs ? [{ name, description: identity.description }] : [];
      }),
      ({ description }) => description,
    );
    if (builds.size < 2) return [];
    const list = [...builds].map(([build, all]) => `${all.map(({ name }) => name).join(', ')}: ${build}`);
    return [
      {
        severity: 'warning',
        subject: directory,
        message: `Its plugins are of several builds (${list.join('; ')})`,
        cause: 'Files were copied there one by one, or an installation was interrupted',
        fix: installInto(directory),
      },
    ];
  });
}

/** Plugins of which a runtime runs, or another directory has, a different build than this command uses. */
function drift(path: readonly string[], names: readonly string[]): Finding[] {
  const runtimes = runtimePaths();
  const unused = [...path.slice(1), ...usualDirectories].filter(
    (one) =>
      !path.slice(0, 1).includes(one) && !runtimes.some(({ directories }) => directories.includes(one)),
  );
  return [
    ...runtimes.flatMap(({ file, directories }) => {
      const cause = `"${file}" tells the runtime to look in ${directories.join(', ')}, and the command looks in ${path.join(', ')}`;
      return differences(names, path, directories).map(({ directory, list }): Finding => {
        const message = `The runtime takes other builds from there than the command does: ${list}`;
        return { severity: 'warning', subject: directory, message, cause, fix: installInto(directory) };
      });
    }),
    ...[...new Set(unused)].flatMap((directory) =>
      differences(names, path, [directory]).map(({ list }): Finding => {
        const message = `It has other builds than those in use: ${list}`;
        const cause =
          'A package or an earlier installation is there; no runtime that is configured here takes it';
        return { severity: 'info', subject: directory, message, cause, fix: installInto(directory) };
      }),
    ),
  ];
}

/** Plugins that two search paths find in different builds, by directory of the second path. */
function differences(
  names: readonly string[],
  path: readonly string[],
  other: readonly string[],
): { directory: string; list: string }[] {
  const find = (name: string, directories: readonly string[]) => {
    const directory = directories.find((one) => isFile(join(one, name)));
    const description = directory && identify(join(directory, name), name)?.description;
    return directory && description ? { name, directory, description } : undefined;
  };
  const found = names.flatMap((name) => {
    const [mine, theirs] = [find(name, path), find(name, other)];
    return mine && theirs && mine.description !== theirs.description ? [theirs] : [];
  });
  return [...Map.groupBy(found, ({ directory }) => directory)].map(([directory, all]) => ({
    directory,
    list: all.map(({ name, description }) => `${name} (${description})`).join(', '),
  }));
}

/** Where distributions put plugins. */
const usualDirectories = ['/opt/cni/bin', '/usr/lib/cni', '/usr/libexec/cni', '/usr/local/libexec/cni'];

/** The files, and the keys in them, that tell containerd, CRI-O and podman where plugins are. */
const runtimeFiles = [
  '/etc/containerd/config.toml',
  '/etc/crio/crio.conf',
  '/etc/containers/containers.conf',
];
const crioDirectory = '/etc/crio/crio.conf.d';
const runtimeKey = /^\s*(?:bin_dirs?|plugin_dirs|cni_plugin_dirs)\s*=\s*(\[[^\]]*\]|"[^"]*")/gm;

/** Where the runtimes of this host look for plugins, according to their configuration. */
function runtimePaths(): { file: string; directories: string[] }[] {
  const more = namesIn(crioDirectory).map((name) => join(crioDirectory, name));
  return [...runtimeFiles, ...more].flatMap((file) => {
    try {
      const text = readRegularFile(file, { followLink: true, limit: 1024 * 1024 });
      return [...text.matchAll(runtimeKey)].map(([, value]) => ({
        file,
        directories: [...value!.matchAll(/"([^"]+)"/g)].map(([, one]) => one!.replace(/(?<=.)\/$/, '')),
      }));
    } catch {
      return []; // That runtime is not installed.
    }
  });
}

function isFile(file: string): boolean {
  return Boolean(statusAt(file)?.isFile());
}

function installInto(directory: string): string {
  return `cni install --bin-dir ${shellWord(directory)}`;
}

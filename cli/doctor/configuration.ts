/** What `cni validate` says of the networks, and what their plugins say of the kernel. */

import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { networkFiles } from '../libcni/conflist.ts';
import { configDir } from '../settings.ts';
import { count } from '../terminal.ts';
import { type Check, type Finding, shellWord } from './check.ts';
import type { Context } from './context.ts';

export const configuration: Check = {
  id: 'configuration',
  title: 'Networks',
  run({ files }) {
    const findings = files.flatMap(({ file, findings }) =>
      findings
        // The next check, "kernel", reports those.
        .filter(({ rule }) => rule !== 'host')
        .map(
          ({ severity, message, path }): Finding => ({
            severity,
            message,
            subject: path ? `${file} ${path}` : file,
            cause: 'The file was written or changed like this',
            fix: `Change the file, and look with "cni validate ${shellWord(file)}"`,
          }),
        ),
    );
    return {
      findings: [...noNetwork(), ...findings],
      seen: `${count(files.length, 'file')} of "${configDir()}" can be used`,
    };
  },
};

function noNetwork(): Finding[] {
  const finding = {
    subject: configDir(),
    cause: 'No network was configured, or runtimes look for networks elsewhere',
    fix: 'cni network create NAME',
  };
  try {
    if (networkFiles(configDir()).length > 0) return [];
    return [
      { ...finding, severity: 'info', message: 'The directory has no network, so that no pod gets one' },
    ];
  } catch (error) {
    return [{ ...finding, severity: 'error', message: (error as Error).message }];
  }
}

export const kernel: Check = {
  id: 'kernel',
  title: 'Kernel modules',
  run(context) {
    const findings = [...lostModules(), ...refusals(context)];
    return { findings, seen: 'the kernel has what the plugins of the networks need' };
  },
};

/** What plugins answer to STATUS, whatever cniVersion their networks have. */
function refusals({ files }: Context): Finding[] {
  return files.flatMap(({ file, findings }) =>
    findings
      .filter(({ rule }) => rule === 'host')
      .map(({ message, path }) => ({
        severity: 'error',
        subject: `${file} ${path}`,
        message,
        cause: 'The plugin has tried it out, and failed; ADD would fail too',
        fix: modprobeOf(message) ?? 'Do as the message says',
      })),
  );
}

/** Messages name the module, as in 'Load the module "nft_meta_bridge"'. */
function modprobeOf(message: string): string | undefined {
  const kind = /module "([\w-]+)"|kind "([\w-]+)"/.exec(message);
  const name = kind?.[1] ?? kind?.[2];
  return name && `modprobe ${name === 'vlan' ? '8021q' : name}`;
}

/** After a kernel upgrade, the modules of the running kernel may be gone from the disk. */
function lostModules(): Finding[] {
  const directory = `/lib/modules/${release()}`;
  if (!existsSync('/proc/modules') || existsSync(directory)) return [];
  return [
    {
      severity: 'warning',
      subject: directory,
      message: `The kernel that runs, ${release()}, can load no more modules: "${directory}" does not exist`,
      cause: 'The kernel was upgraded, and the host was not started again',
      fix: 'reboot',
    },
  ];
}

/** `cni doctor` on a host with faults. */

import type { ExecutionContext } from 'ava';
import type { Conflist, PluginConf } from './chain.ts';
import type { Pod } from './host.ts';
import { makeOperator, type Operator } from './operator.ts';
import { outsideOf } from './outside.ts';

export const network = (name: string, ...plugins: PluginConf[]): Conflist => ({
  cniVersion: '1.1.0',
  name,
  plugins,
});
export const hostLocal = (...subnets: string[]) => ({
  type: 'host-local',
  ranges: subnets.map((subnet) => [{ subnet }]),
});

export const bridged = network(
  'net',
  {
    type: 'bridge',
    bridge: 'br0',
    isDefaultGateway: true,
    ipMasq: true,
    ipam: hostLocal('10.5.0.0/24', 'fd00:5::/64'),
  },
  { type: 'portmap', capabilities: { portMappings: true } },
);

interface Found {
  rule: string;
  severity: string;
  subject: string;
  message: string;
  cause: string;
  fix: string;
  fixable: boolean;
}

interface Report {
  exit: number | string;
  found: Found[];
  fixes: (Found & { fixed: boolean; failure?: string })[];
  checks: string[];
}

export async function examine(
  on: Operator,
  args: string[] = [],
  env: NodeJS.ProcessEnv = {},
): Promise<Report> {
  const { exit, stdout, stderr } = await on.tryCni(['doctor', '-o', 'json', ...args], env);
  if (!stdout.startsWith('{')) throw new Error(`exit ${exit}: ${stdout}${stderr}`);
  const { checks, fixes } = JSON.parse(stdout) as {
    checks: { id: string; findings: Found[] }[];
    fixes: Report['fixes'];
  };
  const found = checks.flatMap(({ findings }) => findings).filter(({ severity }) => severity !== 'info');
  return { exit, found, fixes, checks: checks.map(({ id }) => id) };
}

/** A host with a neighbour and a pod on a bridge. */
export async function scene(t: ExecutionContext, ...networks: Conflist[]) {
  const on = await makeOperator(t, networks.length > 0 ? networks : [bridged]);
  const outside = await outsideOf(on.host);
  const pod = networks.length > 0 ? undefined : await on.attach('net');
  return { on, outside, pod: pod as Pod };
}

/** Sees that a fault is found, that the command that is printed fixes it, and that --fix does if it says so. */
export async function testFix(
  t: ExecutionContext,
  on: Operator,
  fault: string,
  rule: string | readonly string[],
  {
    subject,
    command = /./,
    cause = /./,
    fixable = false,
    isWell,
  }: {
    subject: RegExp;
    command?: RegExp;
    cause?: RegExp;
    fixable?: boolean;
    isWell?: () => Promise<boolean>;
  },
): Promise<void> {
  const before = await examine(on);
  t.deepEqual([before.exit, before.found], [0, []], 'before');
  await on.sh(fault);
  if (isWell) t.false(await isWell(), 'the fault is real');
  const { exit, found } = await examine(on);
  t.is(exit, 1);
  t.deepEqual([...new Set(found.map((one) => one.rule))], [rule].flat(), JSON.stringify(found));
  for (const one of found) {
    t.regex(one.subject, subject);
    t.regex(one.fix, command);
    t.is(one.fixable, fixable, one.subject);
    t.regex(one.cause, cause);
  }
  for (const { fix } of found) await on.sh(fix);
  if (isWell) t.true(await isWell(), 'the command fixes it');
  const after = await examine(on);
  t.deepEqual([after.exit, after.found], [0, []], `after ${found.map(({ fix }) => fix).join('; ')}`);
  if (!fixable) return;
  await on.sh(fault);
  const fixed = await examine(on, ['--fix']);
  t.deepEqual(fixed.found, []);
  t.true(fixed.fixes.length > 0 && fixed.fixes.every(({ fixed }) => fixed), JSON.stringify(fixed.fixes));
  t.is(fixed.exit, 0);
  if (isWell) t.true(await isWell(), '--fix fixes it');
}

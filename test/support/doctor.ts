/** `cni doctor` on a host with faults. */

import type { ExecutionContext } from 'ava';
import type { Conflist, PluginConf } from './chain.ts';
import { type Pod, startAgent } from './host.ts';
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

/**
 * A host with a neighbour, and with a pod on a bridge unless it is given other networks. Its agent does the
 * many plugin calls of each examination, which saves a process for each.
 */
export async function scene(t: ExecutionContext, ...networks: Conflist[]) {
  const on = await makeOperator(t, networks.length > 0 ? networks : [bridged]);
  const outside = await outsideOf(on.host);
  const agent = await startAgent(t, on.host);
  const pod = networks.length > 0 ? undefined : await on.attach('net');
  return { on, outside, agent, pod: pod as Pod };
}

/**
 * Checks that a fault is found, that --fix repairs it if it is said to be fixable, and that the printed
 * command repairs it too, after which nothing is found.
 */
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
  await on.sh(fault);
  if (isWell) t.false(await isWell(), 'the fault is real');
  const report = await examine(on, fixable ? ['--fix'] : []);
  const found = fixable ? report.fixes : report.found;
  t.deepEqual([...new Set(found.map((one) => one.rule))], [rule].flat(), JSON.stringify(report));
  for (const one of found) {
    t.regex(one.subject, subject);
    t.regex(one.fix, command);
    t.is(one.fixable, fixable, one.subject);
    t.regex(one.cause, cause);
  }
  if (fixable) {
    t.deepEqual([report.exit, report.found], [0, []], '--fix fixes it');
    t.true(
      report.fixes.every(({ fixed }) => fixed),
      JSON.stringify(report.fixes),
    );
    if (isWell) t.true(await isWell(), '--fix fixes it');
    await on.sh(fault);
  } else t.is(report.exit, 1);
  for (const { fix } of found) await on.sh(fix);
  if (isWell) t.true(await isWell(), 'the command fixes it');
  const after = await examine(on);
  t.deepEqual([after.exit, after.found], [0, []], `after ${found.map(({ fix }) => fix).join('; ')}`);
}

/** etcd, the API server, the controllers and the scheduler, and kubectl to talk to them. */

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Output } from '../../test/support/run.ts';
import { type Program, programPath } from './build.ts';
import { type Machine, startDaemon, succeeds, untilReady } from './machine.ts';

/** The addresses of pods, of which each node has a /24. */
export const podNetwork = '10.244.0.0/16';

/** The addresses of Services. */
const serviceNetwork = '10.96.0.0/16';

const directory = '/run/kubernetes';
const kubeconfig = `${directory}/admin.conf`;
const certificate = `${directory}/apiserver.crt`;
const accountKey = `${directory}/service-account.key`;

export class ControlPlane {
  readonly machine: Machine;
  private readonly token = randomBytes(16).toString('hex');

  private constructor(machine: Machine) {
    this.machine = machine;
  }

  /** Starts everything on a machine; it ends with the machine. */
  static async start(machine: Machine): Promise<ControlPlane> {
    const plane = new ControlPlane(machine);
    await plane.startEtcd();
    await plane.startApiServer();
    await plane.startControllers();
    return plane;
  }

  /**
   * A kubeconfig for a client of the API, which includes the certificate of the server.
   * @param token of a user; by default, that of the administrator.
   */
  kubeconfig(token = this.token): string {
    const { node, address } = this.machine;
    const authority = readFileSync(node.file(certificate)).toString('base64');
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [
        {
          name: 'cluster',
          cluster: { server: `https://${address}:6443`, 'certificate-authority-data': authority },
        },
      ],
      users: [{ name: 'user', user: { token } }],
      contexts: [{ name: 'cluster', context: { cluster: 'cluster', user: 'user' } }],
      'current-context': 'cluster',
    });
  }

  /** Runs kubectl, whether or not it succeeds. @param stdin manifests, for `apply --filename -`. */
  tryKubectl(argv: readonly string[], stdin?: string): Promise<Output> {
    const env = { KUBECONFIG: kubeconfig, HOME: '/run' };
    return this.machine.node.tryRun([programPath('kubectl'), ...argv], {
      env,
      timeout: 400_000,
      ...(stdin !== undefined && { stdin }),
    });
  }

  /** Runs kubectl, which must succeed. @returns its standard output. */
  async kubectl(argv: readonly string[], stdin?: string): Promise<string> {
    const { exit, stdout, stderr } = await this.tryKubectl(argv, stdin);
    if (exit !== 0) throw new Error(`kubectl ${argv.join(' ')}: exit ${exit}\n${stderr}${stdout}`);
    return stdout;
  }

  private async startEtcd(): Promise<void> {
    const client = 'http://127.0.0.1:2379';
    const peer = 'http://127.0.0.1:2380';
    await startDaemon(this.machine, 'etcd', [
      'etcd',
      '--data-dir=/run/etcd',
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=default=${peer}`,
    ]);
    await untilReady(this.machine, 'etcd', () =>
      succeeds(this.machine, ['curl', '--silent', '--fail', `${client}/health`]),
    );
  }

  private async startApiServer(): Promise<void> {
    const { node, address } = this.machine;
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    node.write(accountKey, privateKey.export({ type: 'pkcs1', format: 'pem' }).toString());
    node.write(`${directory}/tokens.csv`, `${this.token},admin,admin,system:masters\n`);
    await this.startProgram('kube-apiserver', [
      '--etcd-servers=http://127.0.0.1:2379',
      `--advertise-address=${address}`,
      `--service-cluster-ip-range=${serviceNetwork}`,
      `--cert-dir=${directory}`,
      `--token-auth-file=${directory}/tokens.csv`,
      '--authorization-mode=RBAC',
      '--allow-privileged=true',
      '--kubelet-preferred-address-types=InternalIP',
      '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
      `--service-account-signing-key-file=${accountKey}`,
      `--service-account-key-file=${accountKey}`,
    ]);
    const healthy = ['curl', '--silent', '--fail', '--cacert', certificate];
    const authorization = ['--header', `Authorization: Bearer ${this.token}`];
    await untilReady(this.machine, 'kube-apiserver', () =>
      succeeds(this.machine, [...healthy, ...authorization, `https://${address}:6443/readyz`]),
    );
    node.write(kubeconfig, this.kubeconfig());
  }

  private async startControllers(): Promise<void> {
    const client = [`--kubeconfig=${kubeconfig}`, '--leader-elect=false', `--cert-dir=${directory}`];
    await this.startProgram('kube-controller-manager', [
      ...client,
      '--allocate-node-cidrs=true',
      `--cluster-cidr=${podNetwork}`,
      `--service-cluster-ip-range=${serviceNetwork}`,
      `--service-account-private-key-file=${accountKey}`,
      `--root-ca-file=${certificate}`,
    ]);
    await this.startProgram('kube-scheduler', client);
    for (const [name, port] of [
      ['kube-controller-manager', 10257],
      ['kube-scheduler', 10259],
    ] as const)
      await untilReady(this.machine, name, () =>
        succeeds(this.machine, [
          'curl',
          '--silent',
          '--fail',
          '--insecure',
          `https://127.0.0.1:${port}/healthz`,
        ]),
      );
  }

  private startProgram(program: Program, flags: readonly string[]): Promise<void> {
    return startDaemon(this.machine, program, [programPath(program), ...flags]);
  }
}

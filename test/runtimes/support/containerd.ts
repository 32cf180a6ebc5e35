/**
 * A private containerd on a node, and its Container Runtime Interface as the kubelet uses it: gRPC over the
 * socket. The image of every sandbox is a web server, so that a bare sandbox already has something to talk
 * to.
 */

import { join } from 'node:path';
import { credentials, loadPackageDefinition, type ServiceClientConstructor } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { randomName } from '../../support/host.ts';
import { until } from '../../support/observe.ts';
import { browseCommand, pageOf } from './image.ts';
import { type Node, pluginDir, webImage } from './node.ts';

const directory = '/run/containerd-test';
const socket = `${directory}/socket`;
/**
 * A configuration of containerd.
 * @param directory for all its files, among them its socket, "socket".
 * @param binDir where it looks for plugins.
 * @param sandboxImage what the sandbox of every pod runs.
 */
export const containerdConfiguration = (directory: string, binDir: string, sandboxImage: string) => `
version = 2
root = "${directory}/root"
state = "${directory}/state"
[grpc]
  address = "${directory}/socket"
[ttrpc]
  address = "${directory}/ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${sandboxImage}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${binDir}"
    conf_dir = "/etc/cni/net.d"
`;

const ctr = ['ctr', '--address', socket, '--namespace', 'k8s.io'];

const { runtime } = loadPackageDefinition(
  loadSync(join(import.meta.dirname, 'cri.proto'), { keepCase: true }),
) as unknown as { runtime: { v1: { RuntimeService: ServiceClientConstructor } } };
const { RuntimeService } = runtime.v1;

/** A port that a pod publishes on the node. */
export interface PublishedPort {
  host_port: number;
  container_port: number;
  host_ip?: string;
}

/** A pod's sandbox, as RunPodSandbox made it. */
export interface Sandbox {
  readonly id: string;
  /** Its addresses, the first one first. */
  readonly ips: readonly string[];
  readonly config: object;
}

/** containerd and its client. */
export class Containerd {
  private readonly node: Node;
  private client!: InstanceType<ServiceClientConstructor>;
  private pid!: number;

  private constructor(node: Node) {
    this.node = node;
  }

  /**
   * Starts containerd on a node; it ends with the node.
   * @param binDir where it looks for plugins.
   */
  static async start(node: Node, binDir = pluginDir as string): Promise<Containerd> {
    const containerd = new Containerd(node);
    node.write(`${directory}/config.toml`, containerdConfiguration(directory, binDir, webImage));
    await containerd.launch();
    await node.run([...ctr, 'images', 'import', '/run/web.tar']);
    return containerd;
  }

  /** Ends containerd, but not the pods, and starts it again, as an upgrade does. */
  async restart(): Promise<void> {
    this.client.close();
    await this.node.run(['kill', String(this.pid)]);
    await this.node.run(['sh', '-c', `while kill -0 ${this.pid} 2>/dev/null; do sleep 0.02; done`]);
    await this.launch();
  }

  /** Ends containerd with SIGKILL. The pods keep running, and so do plugins that it is waiting for. */
  async kill(): Promise<void> {
    this.client.close();
    await this.node.run(['kill', '-KILL', String(this.pid)]);
  }

  /** The result of its last load of the network configurations: "OK", or the reason why none was loaded. */
  async lastNetworkLoad(): Promise<string> {
    const { info } = await this.call<{ info: Record<string, string> }>('Status', { verbose: true });
    return info.lastCNILoadStatus ?? '';
  }

  /**
   * Runs a pod's sandbox.
   * @throws Error with containerd's message, which includes the plugin's error.
   */
  async runSandbox(
    ports: readonly PublishedPort[] = [],
    annotations: Readonly<Record<string, string>> = {},
  ): Promise<Sandbox> {
    const name = randomName();
    const config = {
      metadata: { name, uid: name, namespace: 'default', attempt: 0 },
      hostname: name,
      log_directory: `${directory}/log`,
      port_mappings: ports.map((port) => ({ protocol: 'TCP', ...port })),
      annotations,
      linux: { cgroup_parent: this.node.cgroup },
    };
    const { pod_sandbox_id: id } = await this.call<{ pod_sandbox_id: string }>('RunPodSandbox', { config });
    const { status } = await this.call<{
      status: { network: { ip: string; additional_ips?: { ip: string }[] } };
    }>('PodSandboxStatus', { pod_sandbox_id: id });
    const { ip, additional_ips: more = [] } = status.network;
    return { id, ips: [ip, ...more.map((additional) => additional.ip)], config };
  }

  /** Starts a container that does nothing for an hour in a sandbox. @returns its ID. */
  async startContainer(sandbox: Sandbox, name: string): Promise<string> {
    const { container_id: id } = await this.call<{ container_id: string }>('CreateContainer', {
      pod_sandbox_id: sandbox.id,
      config: { metadata: { name, attempt: 0 }, image: { image: webImage }, command: ['/bin/sleep', '3600'] },
      sandbox_config: sandbox.config,
    });
    await this.call('StartContainer', { container_id: id });
    return id;
  }

  /** Runs a command in a container. @returns its standard output. @throws Error unless it succeeds. */
  async exec(container: string, cmd: readonly string[]): Promise<string> {
    const { stdout, stderr, exit_code } = await this.call<{
      stdout?: Buffer;
      stderr?: Buffer;
      exit_code?: number;
    }>('ExecSync', { container_id: container, cmd, timeout: 120 });
    if (exit_code) throw new Error(`${cmd.join(' ')}: exit ${exit_code}\n${stderr}`);
    return String(stdout ?? '').trim();
  }

  /** What a web server says to a container. */
  async browse(container: string, address: string, port = 80): Promise<string> {
    return pageOf(await this.exec(container, browseCommand(address, port)));
  }

  /** StopPodSandbox, which takes the network away. */
  async stopSandbox({ id }: Sandbox): Promise<void> {
    await this.call('StopPodSandbox', { pod_sandbox_id: id });
  }

  /** RemovePodSandbox. */
  async removeSandbox({ id }: Sandbox): Promise<void> {
    await this.call('RemovePodSandbox', { pod_sandbox_id: id });
  }

  private async launch(): Promise<void> {
    const script = `
      containerd --config ${directory}/config.toml >> ${directory}/log 2>&1 &
      echo $!
      for try in $(seq 200); do ${ctr.join(' ')} version > /dev/null 2>&1 && exit; sleep 0.05; done
      cat ${directory}/log >&2; exit 1`;
    this.pid = Number(await this.node.run(['sh', '-c', script]));
    this.client = new RuntimeService(`unix://${this.node.file(socket)}`, credentials.createInsecure());
    // It answers "ctr" before its CRI plugin has found out what runs already.
    await until('containerd serves CRI', () =>
      this.call('Status', {}).then(
        () => true,
        () => false,
      ),
    );
  }

  private call<T>(method: string, request: object): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.client[method]!(request, { deadline: Date.now() + 300_000 }, (error: Error | null, response: T) => {
      if (error) reject(error);
      else resolve(response);
    });
    return promise;
  }
}

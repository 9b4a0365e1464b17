"""The files of deploy/ under the checkers of their own formats, and what has to agree between them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.conftest import ServerProcess
from tests.parts import program
from tests.ports import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
ROOTS = ("overlays/annotations", "overlays/prometheus-operator", "collector", "locust")


def run(name, *arguments, install="pip install 'obsserve[test]'"):
    done = subprocess.run(
        [program(name, install), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def load(path):
    return yaml.safe_load((DEPLOY / path).read_text())


@pytest.fixture(scope="module", params=ROOTS)
def built(request, tmp_path_factory):
    """What `kubectl apply -k` would apply: the file and the manifests in it."""
    rendered = run("kubectl", "kustomize", KUBERNETES / request.param).stdout
    path = tmp_path_factory.mktemp("built") / "manifests.yaml"
    path.write_text(rendered)
    return path, [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


@pytest.fixture(scope="module")
def operator():
    rendered = run("kubectl", "kustomize", KUBERNETES / "overlays/prometheus-operator").stdout
    return {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(rendered)}


def pod_of(manifest):
    return manifest["spec"]["template"]["spec"]


def variables(container):
    return {entry["name"]: entry.get("value") for entry in container["env"]}


class TestFormats:
    def test_yaml(self):
        run("yamllint", "--strict", "-c", ".yamllint.yaml", "deploy", "dashboards")

    def test_dockerfile(self):
        run("hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile")

    def test_compose(self):
        run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")

    def test_kubernetes(self, built):
        path, manifests = built
        done = run("kubernetes-validate", "--strict", path)
        said = done.stdout + done.stderr
        unknown = set(re.findall(r"schema for kind (\w+)", said))
        assert unknown <= {"PodMonitor", "PrometheusRule"}, "the operator's kinds have no schema there"
        assert said.count(" passed ") == len(manifests) - said.count("schema for kind")

    def test_rules_for_the_operator(self, operator, tmp_path):
        spec = operator["PrometheusRule", "obsserve"]["spec"]
        (tmp_path / "rules.yml").write_text(json.dumps(spec))
        run("promtool", "check", "rules", tmp_path / "rules.yml", install="apt-get install prometheus")

    def test_prometheus_of_compose(self, tmp_path):
        shutil.copy(DEPLOY / "compose/prometheus.yml", tmp_path)
        shutil.copytree(DEPLOY / "prometheus/rules", tmp_path / "rules")
        run("promtool", "check", "config", tmp_path / "prometheus.yml", install="apt-get install prometheus")

    def test_the_rules_for_the_operator_are_fresh(self):
        sys.path.insert(0, str(KUBERNETES))
        try:
            import rules
        finally:
            sys.path.remove(str(KUBERNETES))
        assert rules.TARGET.read_text() == rules.rendered(), "run python deploy/kubernetes/rules.py"


class TestOrchestration:
    def test_every_container_is_confined(self, built):
        for manifest in built[1]:
            if manifest["kind"] not in ("Deployment", "DaemonSet"):
                continue
            pod = pod_of(manifest)
            for container in pod["containers"]:
                rights = container["securityContext"]
                assert rights["readOnlyRootFilesystem"] is True
                assert rights["allowPrivilegeEscalation"] is False
                assert rights["capabilities"]["drop"] == ["ALL"]
                assert container["resources"]["requests"]
                assert container["resources"]["limits"]["memory"]
            if manifest["kind"] == "Deployment":
                assert pod["securityContext"]["runAsNonRoot"] is True
                assert pod["automountServiceAccountToken"] is False

    def test_the_end_of_a_pod_fits_into_its_time(self, operator):
        pod = pod_of(operator["Deployment", "demo"])
        (container,) = pod["containers"]
        given = variables(container)
        stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        delay, graceful = (
            float(given[f"OBSSERVE_{name}"]) for name in ("SHUTDOWN_DELAY", "TIMEOUT_GRACEFUL_SHUTDOWN")
        )
        assert delay < graceful
        assert stop + graceful + 5 <= pod["terminationGracePeriodSeconds"]
        probe = container["readinessProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"] <= delay

    def test_the_probes_ask_the_metrics_port(self, operator):
        (container,) = pod_of(operator["Deployment", "demo"])["containers"]
        asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        assert {probe["port"] for probe in asked.values()} == {"metrics"}
        assert [asked[name]["path"] for name in asked] == ["/startupz", "/readyz", "/livez"]
        service = operator["Service", "demo"]["spec"]["ports"]
        assert [port["targetPort"] for port in service] == ["http"], "the metrics port is not published"

    def test_a_variable_stands_before_those_that_refer_to_it(self, operator):
        (container,) = pod_of(operator["Deployment", "demo"])["containers"]
        seen = set()
        for entry in container["env"]:
            for name in re.findall(r"\$\((\w+)\)", entry.get("value") or ""):
                assert name in seen, f"{entry['name']} needs {name}"
            seen.add(entry["name"])
        assert {"OBSSERVE_OTLP_ENDPOINT", "NODE_IP"} <= seen

    def test_the_options_are_real(self, operator):
        """Those in manifests, compose file and image configure a server without a complaint."""
        (container,) = pod_of(operator["Deployment", "demo"])["containers"]
        compose = load("compose.yaml")["services"]["app"]
        image = dict(re.findall(r"(OBSSERVE_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OBSSERVE_")}
        for given, arguments in (
            (variables(container), container["args"]),
            (compose["environment"], compose["command"]),
        ):
            environment = {name: value for name, value in given.items() if value}
            done = subprocess.run(
                [sys.executable, "-m", "obsserve", "--check-config", *arguments],
                capture_output=True, text=True, timeout=60, check=False, env={**clean, **image, **environment},
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "")

    def test_the_monitor_selects_the_pods(self, operator):
        monitor = operator["PodMonitor", "demo"]["spec"]
        labels = operator["Deployment", "demo"]["spec"]["template"]["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        assert monitor["jobLabel"] in labels
        (container,) = pod_of(operator["Deployment", "demo"])["containers"]
        ports = {port["name"] for port in container["ports"]}
        assert {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]} <= ports
        budget = operator["PodDisruptionBudget", "demo"]["spec"]["selector"]["matchLabels"]
        assert budget.items() <= labels.items()

    def test_who_scales_sets_the_number_of_pods(self, operator):
        assert "replicas" not in operator["Deployment", "demo"]["spec"]
        scaler = operator["HorizontalPodAutoscaler", "demo"]["spec"]
        (pods,) = [metric["pods"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
        (rule,) = load("kubernetes/components/autoscaling/adapter-values.yaml")["rules"]["custom"]
        assert pods["metric"]["name"] == rule["name"]["as"]

    def test_the_scalers_query_names_our_metrics(self):
        from promql_parser import parse

        from obsserve.telemetry import catalogue

        (rule,) = load("kubernetes/components/autoscaling/adapter-values.yaml")["rules"]["custom"]
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod="x"')
        parse(query)
        parse(rule["seriesQuery"])
        named = set(re.findall(r"\b((?:http_server|obsserve)_\w+)\{", query + rule["seriesQuery"]))
        assert named == {catalogue.ACTIVE_REQUESTS.name, catalogue.LIMIT.name}

    def test_every_page_is_a_config_map_that_grafana_finds(self, operator):
        pages = {path.stem for path in (ROOT / "dashboards").glob("*.json")}
        for page in pages:
            found = operator["ConfigMap", page]
            assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
            assert json.loads(found["data"][f"{page}.json"])["uid"] == page


class TestCompose:
    def test_what_is_mounted_is_there(self):
        compose = load("compose.yaml")
        for name, service in compose["services"].items():
            for volume in service.get("volumes", ()):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (DEPLOY / source).exists(), f"{name}: {source}"
                else:
                    assert source in compose["volumes"], f"{name}: {source}"

    def test_nothing_is_published_beyond_this_machine(self):
        for name, service in load("compose.yaml")["services"].items():
            for port in service.get("ports", ()):
                assert port.startswith("127.0.0.1:"), name

    def test_who_waits_waits_for_somebody_with_a_health_check(self):
        services = load("compose.yaml")["services"]
        for service in services.values():
            waited = service.get("depends_on", {})
            for other in (
                [name for name, how in waited.items() if how["condition"] == "service_healthy"]
                if isinstance(waited, dict)
                else ()
            ):
                assert "healthcheck" in services[other] or services[other]["build"]["target"] == "app"

    def test_the_stop_is_given_its_time(self):
        assert load("compose.yaml")["services"]["app"]["stop_grace_period"] == "30s"

    @staticmethod
    def listening():
        """The ports of each service, from its own configuration where that names them."""
        collector = load("otel-collector/config.yaml")
        receivers = collector["receivers"]
        (reader,) = collector["service"]["telemetry"]["metrics"]["readers"]
        metrics = reader["pull"]["exporter"]["prometheus"]
        tempo = load("tempo/tempo.yaml")
        endpoints = [
            *(protocol["endpoint"] for protocol in receivers["otlp"]["protocols"].values()),
            receivers["fluentforward"]["endpoint"],
            collector["extensions"]["health_check"]["endpoint"],
            f"{metrics['host']}:{metrics['port']}",
        ]
        # Localhost would be the container's own.
        assert {endpoint.rpartition(":")[0] for endpoint in endpoints} == {"0.0.0.0"}
        spans = tempo["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
        image = dict(re.findall(r"OBSSERVE_(\w*PORT)=(\d+)", (DEPLOY / "Dockerfile").read_text()))
        return {
            "app": {int(port) for port in image.values()},
            "collector": {int(endpoint.rpartition(":")[2]) for endpoint in endpoints},
            "tempo": {tempo["server"]["http_listen_port"], int(spans.rpartition(":")[2])},
            "loki": {load("loki/loki.yaml")["server"]["http_listen_port"]},
            # Their defaults; the first two are started below.
            "prometheus": {9090}, "alertmanager": {9093}, "grafana": {3000}, "locust": {8089},
        }  # fmt: skip

    def test_what_is_published_or_asked_for_health_is_listened_on(self):
        listening = self.listening()
        for name, service in load("compose.yaml")["services"].items():
            for published in service.get("ports", ()):
                assert int(published.rpartition(":")[2]) in listening[name], published
            command = " ".join(service.get("healthcheck", {}).get("test", ()))
            for port in re.findall(r"127\.0\.0\.1:(\d+)", command):
                assert int(port) in listening[name], command

    @pytest.mark.parametrize(
        ("service", "name", "package"),
        [
            ("prometheus", "prometheus", "prometheus"),
            ("alertmanager", "prometheus-alertmanager", "prometheus-alertmanager"),
        ],
    )
    def test_the_real_program_takes_the_command_and_answers_the_health_check(
        self, tmp_path, service, name, package
    ):
        path = program(name, f"apt-get install {package}")
        described = load("compose.yaml")["services"][service]
        # Its mounts, at places of this test's.
        places = {}
        for number, mounted in enumerate(described["volumes"]):
            source, target, *_ = mounted.split(":")
            place = tmp_path / str(number)
            if not source.startswith("."):
                place.mkdir()
            elif (DEPLOY / source).is_dir():
                shutil.copytree(DEPLOY / source, place)
            else:
                shutil.copy(DEPLOY / source, place)
            places[target] = str(place)
        if service == "prometheus":  # rules/*.yml beside the configuration
            folder = tmp_path / "etc"
            folder.mkdir()
            shutil.copy(places["/etc/prometheus/prometheus.yml"], folder / "prometheus.yml")
            shutil.copytree(places["/etc/prometheus/rules"], folder / "rules")
            places = {"/etc/prometheus": str(folder), "/prometheus": places["/prometheus"]}

        def here(word):
            for target, place in sorted(places.items(), key=lambda pair: -len(pair[0])):
                word = word.replace(f"={target}", f"={place}")
            return word

        port = free_port()
        command = [path, *map(here, described["command"]), f"--web.listen-address=127.0.0.1:{port}"]
        command += ["--cluster.listen-address="] if service == "alertmanager" else []
        asked = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", described["healthcheck"]["test"][-1])
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)

        def answers():
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return httpx.get(asked, timeout=5).status_code == 200
            except httpx.HTTPError:
                return False

        try:
            wait_for(answers, f"{service} to be healthy: {tmp_path / 'log'}", 30, interval=0.05)
            if service == "prometheus":
                groups = httpx.get(f"http://127.0.0.1:{port}/api/v1/rules").json()["data"]["groups"]
                assert sum(len(group["rules"]) for group in groups) > 40
        finally:
            process.terminate()
            process.wait(30)

    def test_locust_takes_the_command_and_answers_the_health_check(self, tmp_path, request):
        described = load("compose.yaml")["services"]["locust"]
        server = ServerProcess(tmp_path, "obsserve.demo:app", "--port", "0", "--metrics-port", "0")
        request.addfinalizer(server.kill)
        server.started()
        addresses = {"app:8000": server.url, "app:9464": server.admin_url}

        def here(word):
            for name, url in addresses.items():
                word = word.replace(f"http://{name}", url)
            return word

        port = free_port()
        command = [program("locust", "pip install 'obsserve[test]'"), *map(here, described["command"])]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--web-host=127.0.0.1", f"--web-port={port}"], cwd=ROOT, stdout=log, stderr=log
            )
        check = described["healthcheck"]["test"]
        assert check[:2] == ["CMD", "python"]
        asking = [sys.executable, *(word.replace(":8089/", f":{port}/") for word in check[2:])]
        try:
            deadline = time.monotonic() + 30
            while subprocess.run(asking, capture_output=True, timeout=30, check=False).returncode:
                assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        finally:
            process.terminate()
            process.wait(30)

    def test_each_program_finds_the_others(self):
        """Every host and port in the configurations is a service, and one that listens there."""
        services = load("compose.yaml")["services"]
        listening = self.listening()
        texts = [(DEPLOY / "compose.yaml").read_text(), (DEPLOY / "compose/prometheus.yml").read_text(),
                 (DEPLOY / "tempo/tempo.yaml").read_text()]  # fmt: skip
        named = {(host, int(port)) for host, port in re.findall(r"\b([a-z]+):(\d{4,5})\b", "\n".join(texts))}
        named = {(host, port) for host, port in named if host in services}
        assert len(named) >= 10
        for host, port in named:
            assert port in listening[host], f"{host}:{port}"
        assert load("tempo/tempo.yaml")["server"]["http_listen_port"] == 3200
        assert load("loki/loki.yaml")["server"]["http_listen_port"] == 3100


class TestGrafana:
    def test_below_the_mounted_folder_every_json_file_is_a_page(self):
        """Grafana reads all folders below it, and complains of each file that is none."""
        for path in (ROOT / "dashboards").rglob("*.json"):
            assert json.loads(path.read_text())["uid"] == path.stem, path

    SOURCES = load("grafana/provisioning/datasources/obsserve.yml")["datasources"]

    def test_the_uids_are_those_of_the_dashboards(self):
        from dashboards.src.config import CONFIG

        uids = {source["type"]: source["uid"] for source in self.SOURCES}
        assert uids == {
            "prometheus": CONFIG.prometheus_uid,
            "loki": CONFIG.loki_uid,
            "tempo": CONFIG.tempo_uid,
        }

    def test_every_link_leads_to_a_source(self):
        uids = {source["uid"] for source in self.SOURCES}
        linked = set(
            re.findall(
                r"datasourceUid: (\S+)",
                (DEPLOY / "grafana/provisioning/datasources/obsserve.yml").read_text(),
            )
        )
        assert linked == uids

    def test_a_line_of_the_server_leads_to_its_trace(self):
        (loki,) = [source for source in self.SOURCES if source["type"] == "loki"]
        (field,) = loki["jsonData"]["derivedFields"]
        line = '{"event":"http.request","trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}'
        assert re.search(field["matcherRegex"], line).group(1) == "0af7651916cd43dd8448eb211c80319c"
        # Also as the pages show it.
        line = "200 GET / ok ttfb=0.1 trace_id=0af7651916cd43dd8448eb211c80319c"
        assert re.search(field["matcherRegex"], line).group(1) == "0af7651916cd43dd8448eb211c80319c"

    def test_the_queries_of_a_trace_name_our_metrics(self):
        from promql_parser import parse

        from obsserve.telemetry import catalogue

        (tempo,) = [source for source in self.SOURCES if source["type"] == "tempo"]
        links = tempo["jsonData"]["tracesToMetrics"]
        labels = {tag["value"] for tag in links["tags"]}
        for query in links["queries"]:
            text = query["query"].replace("$$__tags", 'http_route="/"').replace("$$__rate_interval", "1m")
            parse(text)
            for name in re.findall(r"\b((?:http_server|obsserve)_\w+)\{", text):
                base = re.sub(r"_(bucket|count|sum)$", "", name)
                assert labels <= set(catalogue.METRICS[base].labels), name


class TestCollector:
    @pytest.mark.parametrize("path", ["otel-collector/config.yaml", "kubernetes/collector/config.yaml"])
    def test_pipelines_use_what_is_configured(self, path):
        config = load(path)
        for pipeline in config["service"]["pipelines"].values():
            for kind in ("receivers", "processors", "exporters"):
                assert set(pipeline[kind]) <= set(config[kind])
        used = {
            name
            for pipeline in config["service"]["pipelines"].values()
            for kind in pipeline.values()
            for name in kind
        }
        assert used == {*config["receivers"], *config["processors"], *config["exporters"]}
        assert set(config["service"]["extensions"]) == set(config["extensions"])

    def test_both_read_lines_alike(self):
        one, other = load("otel-collector/config.yaml"), load("kubernetes/collector/config.yaml")
        assert one["processors"]["transform/lines"] == other["processors"]["transform/lines"]
        assert one["exporters"] == other["exporters"]

    def test_the_fields_of_lines_are_those_of_the_catalogue(self):
        from obsserve.telemetry import catalogue

        config = (DEPLOY / "otel-collector/config.yaml").read_text()
        named = set(re.findall(r'cache\["(\w+)"\]', config))
        known = {field.name for field in catalogue.LOG_FIELDS}
        assert named <= known, named - known

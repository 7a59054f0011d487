//! From the file's text to [`Written`].

use toml::de::DeTable;

use super::super::fault::Report;
use super::super::section::{At, Here, Section, Table};
use super::{AgentTable, AgentWritten, ContractTable, Named, SourceTable, TriggerTable, TriggerWritten, Written};

impl Written {
    /// Reads the file's text; what cannot be read is told to the report and left out.
    pub(in super::super) fn read(report: &Report<'_>) -> Option<Self> {
        let (root, errors) = DeTable::parse_recoverable(report.text());
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let (problem, advice) = match (error.message(), report.text().get(span.clone())) {
                ("duplicate key", Some(word)) => (
                    format!("`{word:.80}` is here a second time"),
                    "Keep one of them; the keys of a table stand under one heading.",
                ),
                (said, _) => (said.to_owned(), "The file is not TOML here: https://toml.io/en/v1.0.0"),
            };
            report.error(span.start, "", problem, advice);
        }
        if !errors.is_empty() {
            return None;
        }
        let here = Here { key: String::new(), report };
        let root = Section::new(here, root.get_ref());
        let written = Self {
            server: root.table("server"),
            store: root.table("store"),
            agents: root.named("agents").into_iter().map(agent).collect(),
            sources: root.named("sources").into_iter().map(source).collect(),
            triggers: root.named("triggers").into_iter().map(trigger).collect(),
            contracts: root.named("contracts").into_iter().map(contract).collect(),
            retention: root.table("retention"),
        };
        root.finish();
        Some(written)
    }
}

fn agent((name, section): (At<String>, Section<'_, '_, '_>)) -> Named<AgentWritten> {
    let common = <AgentTable as Table>::read(&section);
    let kind = common.runner.as_ref().map(|r| r.value.as_str());
    // Without a runner (or with an unknown one) the keys of every kind are let pass: one fault is enough.
    let own_kind = |k: &&doorbell_agents::Kind| kind == Some(k.name);
    let known = doorbell_agents::KINDS.iter().any(|k| own_kind(&k));
    let kinds = doorbell_agents::KINDS.iter().filter(|k| !known || own_kind(k));
    let own = section.as_json(kinds.flat_map(|k| k.settings).map(|s| s.name)).into_iter().collect();
    section.finish();
    Named { name, table: AgentWritten { common, own } }
}

fn contract((name, section): (At<String>, Section<'_, '_, '_>)) -> Named<ContractTable> {
    let table = <ContractTable as Table>::read(&section);
    section.finish();
    Named { name, table }
}

fn source((name, section): (At<String>, Section<'_, '_, '_>)) -> Named<SourceTable> {
    let table = <SourceTable as Table>::read(&section);
    section.finish();
    Named { name, table }
}

fn trigger((name, section): (At<String>, Section<'_, '_, '_>)) -> Named<TriggerWritten> {
    let trigger = <TriggerTable as Table>::read(&section);
    let way_in = <SourceTable as Table>::read(&section);
    // `enabled` is a key of both: on a trigger it is the trigger's.
    let own = SourceTable::KEYS.iter().filter(|key| !TriggerTable::KEYS.contains(key));
    let first_of_way_in = own
        .filter_map(|key| section.offset_of(key).map(|offset| At { value: *key, offset }))
        .min_by_key(|at| at.offset);
    section.finish();
    Named { name, table: TriggerWritten { trigger, way_in, first_of_way_in } }
}

BEGIN TRANSACTION;
CREATE TABLE tidegauge_alerts (
            fingerprint TEXT PRIMARY KEY, check_name TEXT NOT NULL, model TEXT NOT NULL,
            version TEXT NOT NULL, segment TEXT NOT NULL, column_name TEXT NOT NULL,
            metric TEXT NOT NULL, state TEXT NOT NULL, severity TEXT NOT NULL,
            since TIMESTAMP NOT NULL, window_start TIMESTAMP NOT NULL,
            window_end TIMESTAMP NOT NULL,
            value REAL, low REAL, high REAL, n BIGINT NOT NULL);
INSERT INTO "tidegauge_alerts" VALUES('f1','psi by drift_null','m','','all','a','psi','firing','warning','2026-05-01 12:00:00.000000','2026-05-01 12:00:00.000000','2026-05-01 13:00:00.000000',0.4,NULL,0.1,500);
CREATE TABLE tidegauge_incidents (
            name TEXT PRIMARY KEY, message TEXT NOT NULL, updated_at TIMESTAMP NOT NULL);
INSERT INTO "tidegauge_incidents" VALUES('i1','{"incident": "i1", "number": 1, "title": "psi is high"}','2026-05-01 12:00:00.000000');
CREATE TABLE tidegauge_mutes (
            fingerprint TEXT PRIMARY KEY, until TIMESTAMP, reason TEXT NOT NULL,
            created_at TIMESTAMP NOT NULL);
INSERT INTO "tidegauge_mutes" VALUES('f1',NULL,'known','2026-05-01 12:00:00.000000');
CREATE TABLE tidegauge_outbox (
            incident TEXT NOT NULL, number INTEGER NOT NULL, sink TEXT NOT NULL,
            message TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
            created_at TIMESTAMP NOT NULL, due_at TIMESTAMP NOT NULL, error TEXT NOT NULL,
            PRIMARY KEY (incident, number, sink));
INSERT INTO "tidegauge_outbox" VALUES('i1',1,'log','{"incident": "i1", "number": 1, "title": "psi is high"}','waiting',0,'2026-05-01 12:00:00.000000','2026-05-01 12:00:00.000000','');
INSERT INTO "tidegauge_outbox" VALUES('i1',1,'hook','{"incident": "i1", "number": 1, "title": "psi is high"}','waiting',0,'2026-05-01 12:00:00.000000','2026-05-01 12:00:00.000000','');
CREATE TABLE tidegauge_schema (version INTEGER PRIMARY KEY);
INSERT INTO "tidegauge_schema" VALUES(1);
CREATE TABLE tidegauge_series (
            id INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, version TEXT NOT NULL, segment TEXT NOT NULL,
            column_name TEXT NOT NULL, metric TEXT NOT NULL,
            UNIQUE (model, version, segment, column_name, metric));
INSERT INTO "tidegauge_series" VALUES(1,'m','v1','all','a','psi');
INSERT INTO "tidegauge_series" VALUES(2,'m','v1','all','','psi');
CREATE TABLE tidegauge_states (
            name TEXT PRIMARY KEY, writer TEXT NOT NULL, body BLOB NOT NULL,
            updated_at TIMESTAMP NOT NULL);
INSERT INTO "tidegauge_states" VALUES('desk','w1',X'7801AB562A4E4DCD53B252502A3754AA0500214D042E','2026-05-01 12:00:00.000000');
CREATE TABLE tidegauge_sums (
            model TEXT NOT NULL, source TEXT NOT NULL,
            window_start TIMESTAMP NOT NULL, window_end TIMESTAMP NOT NULL,
            format INTEGER NOT NULL, body BLOB NOT NULL, recorded_at TIMESTAMP NOT NULL,
            PRIMARY KEY (model, source, window_start, window_end));
INSERT INTO "tidegauge_sums" VALUES('m','','2026-05-01 12:00:00.000000','2026-05-01 13:00:00.000000',1,X'73756D73','2026-05-01 12:00:00.000000');
CREATE TABLE tidegauge_transitions (
            fingerprint TEXT NOT NULL, window_start TIMESTAMP NOT NULL, number INTEGER NOT NULL,
            window_end TIMESTAMP NOT NULL, check_name TEXT NOT NULL, model TEXT NOT NULL,
            version TEXT NOT NULL, segment TEXT NOT NULL, column_name TEXT NOT NULL,
            metric TEXT NOT NULL, state_before TEXT NOT NULL, state_after TEXT NOT NULL,
            severity TEXT NOT NULL, value REAL, low REAL, high REAL, n BIGINT NOT NULL,
            late BOOLEAN NOT NULL, recorded_at TIMESTAMP NOT NULL,
            PRIMARY KEY (fingerprint, window_start, number));
INSERT INTO "tidegauge_transitions" VALUES('f1','2026-05-01 12:00:00.000000',0,'2026-05-01 13:00:00.000000','psi by drift_null','m','','all','a','psi','ok','firing','warning',0.4,NULL,0.1,500,0,'2026-05-01 12:00:00.000000');
CREATE TABLE tidegauge_values (
            series BIGINT NOT NULL REFERENCES tidegauge_series (id),
            window_start TIMESTAMP NOT NULL, window_end TIMESTAMP NOT NULL,
            revision INTEGER NOT NULL,
            value REAL, lower REAL, upper REAL, noise_floor REAL, reference_value REAL,
            n BIGINT, n_reference BIGINT, label_share REAL, status TEXT NOT NULL,
            recorded_at TIMESTAMP NOT NULL,
            PRIMARY KEY (series, window_start, window_end, revision));
INSERT INTO "tidegauge_values" VALUES(1,'2026-05-01 12:00:00.000000','2026-05-01 13:00:00.000000',0,0.0,NULL,NULL,NULL,NULL,500,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(2,'2026-05-01 12:00:00.000000','2026-05-01 13:00:00.000000',0,0.0,NULL,NULL,NULL,NULL,500,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(1,'2026-05-01 13:00:00.000000','2026-05-01 14:00:00.000000',0,0.1,NULL,NULL,NULL,NULL,501,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(2,'2026-05-01 13:00:00.000000','2026-05-01 14:00:00.000000',0,0.1,NULL,NULL,NULL,NULL,501,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(1,'2026-05-01 14:00:00.000000','2026-05-01 15:00:00.000000',0,0.2,NULL,NULL,NULL,NULL,502,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(2,'2026-05-01 14:00:00.000000','2026-05-01 15:00:00.000000',0,0.2,NULL,NULL,NULL,NULL,502,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(1,'2026-05-01 12:00:00.000000','2026-05-01 13:00:00.000000',1,1.0,NULL,NULL,NULL,NULL,500,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(2,'2026-05-01 12:00:00.000000','2026-05-01 13:00:00.000000',1,1.0,NULL,NULL,NULL,NULL,500,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(1,'2026-05-01 13:00:00.000000','2026-05-01 14:00:00.000000',1,1.1,NULL,NULL,NULL,NULL,501,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(2,'2026-05-01 13:00:00.000000','2026-05-01 14:00:00.000000',1,1.1,NULL,NULL,NULL,NULL,501,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(1,'2026-05-01 14:00:00.000000','2026-05-01 15:00:00.000000',1,1.2,NULL,NULL,NULL,NULL,502,10000,NULL,'ok','2026-05-01 12:00:00.000000');
INSERT INTO "tidegauge_values" VALUES(2,'2026-05-01 14:00:00.000000','2026-05-01 15:00:00.000000',1,1.2,NULL,NULL,NULL,NULL,502,10000,NULL,'ok','2026-05-01 12:00:00.000000');
CREATE INDEX tidegauge_values_by_window ON tidegauge_values (window_start);
CREATE VIEW tidegauge_metrics AS
            SELECT s.model, s.version, v.window_start, v.window_end, s.segment, s.column_name,
                s.metric, v.value, v.lower, v.upper, v.noise_floor, v.reference_value, v.n,
                v.n_reference, v.label_share, v.status, v.revision, v.recorded_at
            FROM tidegauge_values v JOIN tidegauge_series s ON s.id = v.series
            WHERE NOT EXISTS (
                SELECT 1 FROM tidegauge_values w WHERE w.series = v.series
                AND w.window_start = v.window_start AND w.window_end = v.window_end
                AND w.revision = v.revision + 1);
CREATE INDEX tidegauge_transitions_by_window ON tidegauge_transitions (window_start);
CREATE INDEX tidegauge_outbox_by_due ON tidegauge_outbox (sink, state, due_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('tidegauge_series',4);
COMMIT;
